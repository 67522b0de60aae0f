"""What a network reaches in truth: an IPv6 address can carry an IPv4 one, and cutting off one cuts off the other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Carrier:
    """IPv6 addresses that carry an IPv4 address, `offset` bits from their beginning.

    Args:
        skips: it goes around the bits 64 to 71, as RFC 6052, 2.2, has it.
    """

    prefix: IPv6Network
    offset: int
    skips: bool = False


CARRIERS = (
    Carrier(IPv6Network("::ffff:0:0/96"), 96),  # IPv4-mapped: RFC 4291, 2.5.5.2
    Carrier(IPv6Network("::/96"), 96),  # IPv4-compatible: RFC 4291, 2.5.5.1
    Carrier(IPv6Network("::ffff:0:0:0/96"), 96),  # IPv4-translated: RFC 2765, 2.1
    Carrier(IPv6Network("64:ff9b::/96"), 96),  # NAT64: RFC 6052, 2.1
    Carrier(IPv6Network("2002::/16"), 16),  # 6to4: RFC 3056, 2
)


def nat64(prefix: IPv6Network) -> Carrier:
    """What a provider's own prefix carries."""
    return Carrier(prefix, prefix.prefixlen, skips=prefix.prefixlen < 96)


def reach(network: Network, more: Iterable[Carrier] = ()) -> Iterator[Network]:
    """The network itself, then the IPv4 networks that it carries, by `CARRIERS` and by `more`."""
    yield network
    if isinstance(network, IPv6Network):
        for carrier in (*CARRIERS, *more):
            if carrier.prefix.subnet_of(network):
                yield IPv4Network("0.0.0.0/0")
            elif network.subnet_of(carrier.prefix):
                yield _carried(network, carrier)


def _carried(network: IPv6Network, carrier: Carrier) -> IPv4Network:
    address, length, size = int(network.network_address), network.prefixlen, 128
    if carrier.skips:  # without the bits 64 to 71
        address, size = address >> 64 << 56 | address & (1 << 56) - 1, 120
        length = min(length, 64) if length < 72 else length - 8
    bits = address >> (size - carrier.offset - 32) & 0xFFFF_FFFF
    fixed = min(length - carrier.offset, 32)
    return IPv4Network((bits >> (32 - fixed) << (32 - fixed), fixed))


def meet(one: Network, other: Network) -> bool:
    """Whether they have an address in common."""
    return one.version == other.version and one.overlaps(other)


def written(network: Network) -> str:
    """A single address without its prefix length."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
