"""Which packets a shape is for, as people say it and as keys of the u32 classifier.

Each key compares one byte of the IP header under a mask. A port is looked for in packets that carry one at the usual
place: TCP and UDP, not a later fragment, no IPv4 options, no IPv6 extension headers.
Source: RFC 791, RFC 8200, RFC 2474 (DSCP), tc-u32(8).
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Key = tuple[int, int, int]  # (offset from the start of the IP header, value, mask), each of one byte
Selector = tuple[int, frozenset[Key]]  # (EtherType, keys that must all fit)

Port = Annotated[int, Field(ge=1, le=65535)]
Dscp = Annotated[int, Field(ge=0, le=63)]
Protocol = Literal["tcp", "udp"]
Network = IPv4Network | IPv6Network

_NUMBERS: dict[Protocol, int] = {"tcp": 6, "udp": 17}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_IPV4, _IPV6 = 0x0800, 0x86DD
_PROTOCOL_AT = {_IPV4: 9, _IPV6: 6}
_SOURCE_AT = {_IPV4: 12, _IPV6: 8}
_DESTINATION_AT = {_IPV4: 16, _IPV6: 24}
_PORTS_AT = {_IPV4: 20, _IPV6: 40}
_DSCP_MASKS = {_IPV4: ((1, 0xFC),), _IPV6: ((0, 0x0F), (1, 0xC0))}
_PLAIN_IPV4 = {(0, 5, 0x0F), (6, 0, 0x1F), (7, 0, 0xFF)}  # no options, and a first fragment


class Match(BaseModel):
    """Packets that fulfil all of what is named; at least one thing must be.

    Args:
        source, destination: an address or a network, IPv4 or IPv6.
        protocol: default: TCP and UDP where a port is named, otherwise every protocol.
        source_port, port: the sender's and the receiver's port.
        dscp: the class of service in the IP header.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    source: Network | None = None
    destination: Network | None = None
    protocol: Protocol | None = None
    source_port: Port | None = None
    port: Port | None = None
    dscp: Dscp | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("a match names a source, destination, protocol, port or dscp")
        if self.source and self.destination and self.source.version != self.destination.version:
            raise ValueError("source and destination are of different IP versions")
        if any(network and not network.prefixlen for network in (self.source, self.destination)):
            raise ValueError("a network of prefix length 0 is every address: leave it out, or use set_default_class")
        return self

    def __str__(self) -> str:
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        return " ".join(f"{name} {value}" for name, value in named if value is not None)

    def selectors(self) -> tuple[Selector, ...]:
        """What the kernel has to look for; a packet belongs to the match when one of them fits. At most four."""
        versions = {n.version for n in (self.source, self.destination) if n} or {4, 6}
        ethertypes = [{4: _IPV4, 6: _IPV6}[version] for version in sorted(versions)]
        ports = self.source_port is not None or self.port is not None
        protocols = [self.protocol] if self.protocol or not ports else list(_NUMBERS)
        return tuple(
            (ethertype, frozenset(self._keys(ethertype, p))) for ethertype, p in product(ethertypes, protocols)
        )

    def _keys(self, ethertype: int, protocol: Protocol | None) -> set[Key]:
        keys: set[Key] = set()
        if protocol:
            keys.add((_PROTOCOL_AT[ethertype], _NUMBERS[protocol], 0xFF))
        if self.dscp is not None:
            keys |= _dscp_keys(ethertype, self.dscp)
        for network, starts in ((self.source, _SOURCE_AT), (self.destination, _DESTINATION_AT)):
            if network:
                keys |= _network_keys(network, starts[ethertype])
        for port, at in ((self.source_port, 0), (self.port, 2)):
            if port is not None:
                first = _PORTS_AT[ethertype] + at
                keys |= {(first, port >> 8, 0xFF), (first + 1, port & 0xFF, 0xFF)}
                keys |= _PLAIN_IPV4 if ethertype == _IPV4 else set()
        return keys


def specificity(selector: Selector) -> int:
    """How many bits it looks at: of two that fit, the one that looks at more is the closer one."""
    return sum(mask.bit_count() for _, _, mask in selector[1])


def match_of(selectors: Iterable[Selector]) -> Match | None:
    """The match whose selectors these are; None when there is none."""
    found = list(selectors)
    read = [_read(selector) for selector in found]
    if not read or any(one is None for one in read):
        return None
    first = dict(read[0] or {})
    if len({one.get("protocol") for one in read if one}) > 1:
        del first["protocol"]
    try:
        match = Match.model_validate(first)
    except ValueError:
        return None
    return match if len(found) == len(set(found)) and set(match.selectors()) == set(found) else None


def single(selector: Selector) -> Match | None:
    """What one selector looks for, be it all of its match or one half; None when a `Match` cannot say it."""
    try:
        return Match.model_validate(_read(selector))
    except ValueError:
        return None


def _read(selector: Selector) -> dict[str, object] | None:
    ethertype, keys = selector
    if ethertype not in _PROTOCOL_AT:
        return None
    bytes_ = {at: value for at, value, _ in keys}
    masks = {at: mask for at, _, mask in keys}
    size = 4 if ethertype == _IPV4 else 16
    said: dict[str, object] = {}
    if (at := _PROTOCOL_AT[ethertype]) in bytes_:
        said["protocol"] = _NAMES.get(bytes_[at])
    if all(at in bytes_ for at, _ in _DSCP_MASKS[ethertype]) and masks[1] in (0xFC, 0xC0):
        said["dscp"] = bytes_[1] >> 2 if ethertype == _IPV4 else (bytes_[0] & 0x0F) << 2 | bytes_[1] >> 6
    for name, start in (("source", _SOURCE_AT[ethertype]), ("destination", _DESTINATION_AT[ethertype])):
        if start in bytes_:
            address = bytes(bytes_.get(start + i, 0) for i in range(size))
            prefix = sum(masks.get(start + i, 0).bit_count() for i in range(size))
            said[name] = ip_network((address, prefix))
    for name, start in (("source_port", _PORTS_AT[ethertype]), ("port", _PORTS_AT[ethertype] + 2)):
        if {start, start + 1} <= bytes_.keys():
            said[name] = bytes_[start] << 8 | bytes_[start + 1]
    return said


def _dscp_keys(ethertype: int, dscp: int) -> set[Key]:
    if ethertype == _IPV4:
        return {(1, dscp << 2, 0xFC)}
    return {(0, dscp >> 2, 0x0F), (1, (dscp & 3) << 6, 0xC0)}


def _network_keys(network: Network, start: int) -> set[Key]:
    pairs = zip(network.network_address.packed, network.netmask.packed, strict=True)
    return {(start + i, value, mask) for i, (value, mask) in enumerate(pairs) if mask}
