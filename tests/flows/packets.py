"""Packets that are known, as a capture file that exporters read (https://wiki.wireshark.org/Development/LibpcapFileFormat)."""

import ipaddress
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TCP, UDP, ICMP = 6, 17, 1


@dataclass(frozen=True)
class Conversation:
    """Packets of one direction: `count` of them, each an IP packet of `size` bytes."""

    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    count: int
    size: int


CONVERSATIONS = (
    *(Conversation("10.1.0.1", f"10.2.0.{n}", TCP, 40_000 + n, 443, 3 + n, 100 + 10 * n) for n in range(1, 21)),
    *(Conversation(f"10.2.0.{n}", "10.1.0.1", TCP, 443, 40_000 + n, 2 + n, 1000 + n) for n in range(1, 21)),
    *(Conversation(f"10.3.0.{n}", "10.1.0.53", UDP, 5000 + n, 53, 1, 60 + n) for n in range(1, 31)),
)
IPV6 = tuple(Conversation(f"2001:db8::{n}", "2001:db8:1::1", UDP, 6000 + n, 53, 2, 100 + n) for n in range(1, 6))


def octets(some: Iterable[Conversation]) -> int:
    return sum(one.count * one.size for one in some)


def packets(some: Iterable[Conversation]) -> int:
    return sum(one.count for one in some)


def write_capture(path: Path, some: Sequence[Conversation]) -> None:
    """A capture of these packets: one a millisecond, the last one a second ago."""
    frames = [_frame(one) for one in some for _ in range(one.count)]
    began = time.time() - 1 - len(frames) / 1000
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
        for number, frame in enumerate(frames):
            seconds, part = divmod(began + number / 1000, 1)
            file.write(struct.pack("=IIII", int(seconds), int(part * 1e6), len(frame), len(frame)) + frame)


def _frame(one: Conversation) -> bytes:
    source, destination = (ipaddress.ip_address(text) for text in (one.source, one.destination))
    payload = _transport(one)
    if source.version == 4:
        body = payload.ljust(one.size - 20, b"\0")
        head = (
            struct.pack(">BBHHHBBH", 0x45, 0, one.size, 0, 0, 64, one.protocol, 0) + source.packed + destination.packed
        )
        head = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
        return b"\x02\0\0\0\0\1\x02\0\0\0\0\2\x08\0" + head + body
    body = payload.ljust(one.size - 40, b"\0")
    head = struct.pack(">IHBB", 6 << 28, len(body), one.protocol, 64) + source.packed + destination.packed
    return b"\x02\0\0\0\0\1\x02\0\0\0\0\2\x86\xdd" + head + body


def _transport(one: Conversation) -> bytes:
    if one.protocol == TCP:
        return struct.pack(">HHIIBBHHH", one.source_port, one.destination_port, 1, 1, 0x50, 0x18, 65_535, 0, 0)
    size = one.size - (20 if "." in one.source else 40)
    return struct.pack(">HHHH", one.source_port, one.destination_port, size, 0)


def _checksum(head: bytes) -> int:
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
