"""Arguments of actions that name what an action reaches: guards look at these before a job is taken."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field


@dataclass(frozen=True)
class CutsOff:
    """Marks an argument of an action: it cuts off the addresses that the argument names. Guards look at these."""


def _network(value: object) -> object:
    """One form for each set of addresses, so that nothing passes a guard in disguise."""
    if not isinstance(value, str | IPv4Network | IPv6Network):
        raise ValueError("an address or network is written as text")  # noqa: TRY004 - pydantic's way
    try:
        found = ip_network(value)
    except ValueError:
        raise ValueError("not an address or network, or its host bits are set (10.0.0.0/8, not 10.1.2.3/8)") from None
    if isinstance(found, IPv6Network) and found.network_address.scope_id:
        raise ValueError("an address of one interface (fe80::1%eth0) is another text for the address without it")
    if isinstance(found, IPv6Network) and found.prefixlen >= 96 and (mapped := found.network_address.ipv4_mapped):
        return IPv4Network((mapped, found.prefixlen - 96))
    return found


Address = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
"""An address or a network that an action only names; in the one form of `AddressToCutOff`."""

AddressToCutOff = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network), CutsOff()]
"""An address or a network that an action bans, blocks or drops; an IPv4-mapped IPv6 one is read as IPv4."""


@dataclass(frozen=True)
class Changes:
    """Marks an argument of an action: it changes what the interface of this name sends or receives. Guards look at it.

    The interface is one of the host that the action runs on, in the network namespace that the target's setting
    `netns` names, if it has one.
    """


InterfaceToChange = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,14}$"), Changes()]
"""A network interface that an action shapes, limits or clears, as Linux allows its name; in ASCII, never an option."""
