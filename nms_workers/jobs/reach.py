"""What a network reaches in truth: an IPv6 address can carry an IPv4 one, and cutting off one cuts off the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Carrier:
    """IPv6 addresses that carry an IPv4 address, `offset` bits from their beginning."""

    prefix: IPv6Network
    offset: int


CARRIERS = (
    Carrier(IPv6Network("::ffff:0:0/96"), 96),  # IPv4-mapped: RFC 4291, 2.5.5.2
    Carrier(IPv6Network("::/96"), 96),  # IPv4-compatible: RFC 4291, 2.5.5.1
    Carrier(IPv6Network("::ffff:0:0:0/96"), 96),  # IPv4-translated: RFC 2765, 2.1
    Carrier(IPv6Network("64:ff9b::/96"), 96),  # NAT64: RFC 6052, 2.1
    Carrier(IPv6Network("2002::/16"), 16),  # 6to4: RFC 3056, 2
)


def reach(network: Network) -> Iterator[Network]:
    """The network itself, then the IPv4 networks that it carries."""
    yield network
    if isinstance(network, IPv6Network):
        for carrier in CARRIERS:
            if carrier.prefix.subnet_of(network):
                yield IPv4Network("0.0.0.0/0")
            elif network.subnet_of(carrier.prefix):
                yield _carried(network, carrier.offset)


def _carried(network: IPv6Network, offset: int) -> IPv4Network:
    bits = int(network.network_address) >> (128 - offset - 32) & 0xFFFF_FFFF
    return IPv4Network((bits, min(network.prefixlen - offset, 32)))


def meet(one: Network, other: Network) -> bool:
    """Whether they have an address in common."""
    return one.version == other.version and one.overlaps(other)


def written(network: Network) -> str:
    """A single address without its prefix length."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
