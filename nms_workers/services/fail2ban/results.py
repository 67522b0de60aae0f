"""What the methods of `Fail2banClient` return. Times are aware, durations seconds."""

from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec

Network = IPv4Network | IPv6Network


class JailStatus(msgspec.Struct, frozen=True):
    """The counters of one jail. Totals begin anew when the server or the jail does.

    Args:
        failing: addresses with failures that are still remembered.
        failures: failures found.
        banned: addresses and networks that are banned now.
        bans: bans made.
        sources: the log files or journal matches that are read.
    """

    name: str
    failing: int
    failures: int
    banned: int
    bans: int
    sources: tuple[str, ...]


class JailSettings(msgspec.Struct, frozen=True):
    """What `set_jail` may change.

    Args:
        bantime: seconds a ban lasts; -1: for ever.
        findtime: seconds within which failures are counted together.
        maxretry: so many failures make a ban.
    """

    bantime: int
    findtime: int
    maxretry: int


class Jail(msgspec.Struct, frozen=True):
    """All that is told of one jail.

    Args:
        actions: names of what is done to whoever is banned.
        ignored: addresses, networks and names that are never banned by a filter.
    """

    status: JailStatus
    settings: JailSettings
    actions: tuple[str, ...]
    ignored: tuple[str, ...]


class Ban(msgspec.Struct, frozen=True):
    """One banned address or network.

    Args:
        address: as the server names it; a filter may ban other things than addresses.
        seconds: how long the ban lasts; None: for ever.
        ends_at: None: never.
    """

    jail: str
    address: str
    banned_at: datetime
    seconds: int | None
    ends_at: datetime | None

    def remaining(self, now: datetime) -> float | None:
        """Seconds until it ends, at least 0; None: never."""
        return None if self.ends_at is None else max((self.ends_at - now).total_seconds(), 0.0)


def network_of(text: str) -> Network | None:
    """The address or network that a text names; None: something else."""
    try:
        return ip_network(text)
    except ValueError:
        return None


def text_of(network: Network) -> str:
    """As fail2ban names it: a single address without its prefix."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)
