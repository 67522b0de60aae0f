"""Writers of the formats, as an exporter has them: the other half of the round trips."""

import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

from tests.services.flows.support import NOW

UPTIME = 1_000_000  # milliseconds


class Spec(NamedTuple):
    """A field of a template."""

    number: int
    length: int
    enterprise: int = 0


REVERSED_OCTETS = Spec(1, 1, 29305)


def v5(records: Sequence[dict[str, int]], *, sequence: int = 0, sampling: int = 0, nanoseconds: int = 0) -> bytes:
    head = struct.pack(">HHIIIIBBH", 5, len(records), UPTIME, NOW, nanoseconds, sequence, 1, 2, sampling)
    return head + b"".join(_v5_record(record) for record in records)


def v7(records: Sequence[dict[str, int]], *, sequence: int = 0) -> bytes:
    head = struct.pack(">HHIIIII", 7, len(records), UPTIME, NOW, 0, sequence, 0)
    return head + b"".join(_v5_record(record) + bytes(4) for record in records)


def _v5_record(record: dict[str, int]) -> bytes:
    order = "source destination hop input output packets octets first last sport dport zero flags protocol tos sas das"
    return struct.pack(
        ">IIIHHIIIIHHBBBBHHBBH", *(record.get(name, 0) for name in [*order.split(), "smask", "dmask", "zero"])
    )


def fields(specs: Sequence[Spec]) -> bytes:
    """Field specifiers of a template."""
    told = b""
    for number, length, enterprise in specs:
        told += struct.pack(">HH", number | (0x8000 if enterprise else 0), length)
        told += struct.pack(">I", enterprise) if enterprise else b""
    return told


def a_set(kind: int, body: bytes, padding: int | None = None) -> bytes:
    """A (flow) set, padded to four bytes or by so many."""
    body += bytes(-len(body) % 4 if padding is None else padding)
    return struct.pack(">HH", kind, 4 + len(body)) + body


def template(version: int, number: int, specs: Sequence[Spec]) -> bytes:
    return a_set(0 if version == 9 else 2, struct.pack(">HH", number, len(specs)) + fields(specs))


def options_template(version: int, number: int, scope: Sequence[Spec], specs: Sequence[Spec]) -> bytes:
    if version == 9:
        return a_set(1, struct.pack(">HHH", number, 4 * len(scope), 4 * len(specs)) + fields([*scope, *specs]))
    return a_set(3, struct.pack(">HHH", number, len(scope) + len(specs), len(scope)) + fields([*scope, *specs]))


def message(version: int, *sets: bytes, sequence: int = 0, domain: int = 7, export: int = NOW, count: int = 0) -> bytes:
    """A datagram of NetFlow v9 or IPFIX."""
    body = b"".join(sets)
    if version == 9:
        return struct.pack(">HHIIII", 9, count, UPTIME, export, sequence, domain) + body
    return struct.pack(">HHIII", 10, 16 + len(body), export, sequence, domain) + body


def record(specs: Sequence[Spec], values: Sequence[int | bytes]) -> bytes:
    """A data record; numbers take as many bytes as the field has, bytes stand as they are."""
    return b"".join(
        value.to_bytes(spec.length) if isinstance(value, int) else value
        for spec, value in zip(specs, values, strict=True)
    )


def variable(data: bytes, *, long: bool = False) -> bytes:
    """A field of variable length (RFC 7011 section 7)."""
    return b"\xff" + len(data).to_bytes(2) + data if long or len(data) > 254 else bytes([len(data)]) + data


def packed(text: str) -> bytes:
    return ip_address(text).packed


def sflow(*samples: bytes, sequence: int = 1, agent: str = "192.0.2.9", domain: int = 3) -> bytes:
    """A datagram of sFlow 5."""
    return (
        struct.pack(">I", 5) + located(agent) + struct.pack(">IIII", domain, sequence, UPTIME, len(samples))
        + b"".join(samples)
    )  # fmt: skip


def located(text: str) -> bytes:
    """An address of sFlow, with its type."""
    address = packed(text)
    return struct.pack(">I", 1 if len(address) == 4 else 2) + address


def structure(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 4)


def flow_sample(
    *structures: bytes, number: int = 1, source: int = 3, rate: int = 100, pool: int = 1000, drops: int = 0,
    came: int = 3, left: int = 4,
) -> bytes:  # fmt: skip
    head = struct.pack(">IIIIIIII", number, source, rate, pool, drops, came, left, len(structures))
    return structure(1, head + b"".join(structures))


def expanded_sample(
    *structures: bytes, number: int = 1, source: int = 3, rate: int = 100, came: tuple[int, int] = (0, 3),
    left: tuple[int, int] = (0, 4),
) -> bytes:  # fmt: skip
    head = struct.pack(">IIIIIIIIIII", number, 0, source, rate, 1000, 0, *came, *left, len(structures))
    return structure(3, head + b"".join(structures))


def header(packet: bytes, *, protocol: int = 1, frame: int | None = None, most: int = 128) -> bytes:
    """The structure that holds the first bytes of a packet."""
    size = len(packet) if frame is None else frame
    kept = packet[:most]
    return structure(1, struct.pack(">IIII", protocol, size, 4, len(kept)) + kept)


def counter_sample(*structures: bytes, number: int = 1, source: int = 3) -> bytes:
    return structure(2, struct.pack(">III", number, source, len(structures)) + b"".join(structures))
