"""What every sweep of a network needs: its networks read, checked and refused, and how far it is."""

import sys
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from pydantic import TypeAdapter, ValidationError

from nms_workers.arguments import Address
from nms_workers.errors import ConfigError, Refused
from nms_workers.settings import Settings

Network = IPv4Network | IPv6Network


def network(text: str) -> Network:
    try:
        network: Network = TypeAdapter(Address).validate_python(text)
    except ValidationError as exc:
        raise ConfigError(f"{text[:60]!r}: {exc.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return network


def check_allowed(settings: Settings, wanted: Sequence[Network], even: Sequence[Network]) -> None:
    """What belongs to others, or is protected, is swept only when it is named twice.

    Raises:
        Refused: a network is not.
    """
    from nms_workers.services.snmp.discovery import within

    for network in wanted:
        hit = next(
            (one for one in settings.guards.protected if one.version == network.version and one.overlaps(network)), None
        )
        why = f"touches {hit}, which is protected by the settings" if hit else ""
        why = why or ("" if network.is_private else "is not a private network")
        if why and not any(within(network, one) for one in even):
            raise Refused(f"{network} is not swept: it {why}", hint=f"if it is yours, add --even {network}")


class Progress:
    """A bar for people, where somebody looks; a line every now and then in a log."""

    def __init__(self, addresses: int, what: str = "addresses") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("0 found", total=addresses)
        self._step, self._addresses, self._what = max(1, addresses // 10), addresses, what

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, asked: int, found: int) -> None:
        """So far."""
        self._bar.update(self._task, completed=asked, description=f"{found} found")
        if self._bar.disable and asked % self._step == 0:
            sys.stderr.write(f"{asked} of {self._addresses} {self._what} asked, {found} answered\n")
