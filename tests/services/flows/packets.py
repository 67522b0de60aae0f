"""Packets, byte by byte, and files of them."""

import struct
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

SOURCE_MAC, DESTINATION_MAC = 0x020000000001, 0x020000000002
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58


def frame(kind: int, body: bytes, tags: Iterable[int] = ()) -> bytes:
    """Ethernet, with 802.1Q tags from the outermost on."""
    head = DESTINATION_MAC.to_bytes(6) + SOURCE_MAC.to_bytes(6)
    return head + b"".join(struct.pack(">HH", 0x8100, tag) for tag in tags) + struct.pack(">H", kind) + body


def mpls(labels: list[int], body: bytes) -> bytes:
    """A stack of labels, the last of which is its bottom."""
    entries = [label << 12 | (index == len(labels) - 1) << 8 | 64 for index, label in enumerate(labels)]
    return b"".join(struct.pack(">I", entry) for entry in entries) + body


def ipv4(
    source: str, destination: str, protocol: int, body: bytes, *, tos: int = 0, ttl: int = 64, options: bytes = b"",
    fragment: int = 0,
) -> bytes:  # fmt: skip
    """IPv4 with a right checksum; `options` in words of four bytes."""
    size = 20 + len(options)
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x40 | size // 4, tos, size + len(body), 7, fragment, ttl, protocol, 0,
        ip_address(source).packed, ip_address(destination).packed,
    ) + options  # fmt: skip
    return head[:10] + _checksum(head).to_bytes(2) + head[12:] + body


def ipv6(
    source: str, destination: str, protocol: int, body: bytes, *, tos: int = 0, ttl: int = 64, label: int = 0
) -> bytes:
    """IPv6; extension headers are part of the body."""
    head = struct.pack(">IHBB", 6 << 28 | tos << 20 | label, len(body), protocol, ttl)
    return head + ip_address(source).packed + ip_address(destination).packed + body


def tcp(source: int, destination: int, flags: int, size: int = 0) -> bytes:
    return struct.pack(">HHIIHHHH", source, destination, 1, 0, 5 << 12 | flags, 1000, 0, 0) + bytes(size)


def udp(source: int, destination: int, size: int = 0) -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + size, 0) + bytes(size)


def icmp(kind: int, code: int, size: int = 0) -> bytes:
    return struct.pack(">BBHHH", kind, code, 0, 1, 1) + bytes(size)


def write(path: Path, packets: list[bytes], start: int) -> None:
    """A pcap file: one packet every 10 ms from `start` on, in seconds since 1970."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    rows = [
        struct.pack("<IIII", start + index // 100, index % 100 * 10_000, len(packet), len(packet)) + packet
        for index, packet in enumerate(packets)
    ]
    path.write_bytes(head + b"".join(rows))


def traffic() -> list[bytes]:
    """What some hosts say to each other: TCP both ways, UDP, ICMP, IPv4 and IPv6."""
    told: list[bytes] = []
    for host in range(12):
        client, server = f"10.0.0.{1 + host % 3}", "10.0.1.9"
        for index in range(4 + host):
            body = tcp(40_000 + host, 443, 0x002 if index == 0 else 0x018, 100 + index)
            told.append(frame(0x0800, ipv4(client, server, TCP, body, tos=0x20)))
        told.append(frame(0x0800, ipv4(server, client, TCP, tcp(443, 40_000 + host, 0x012))))
        told.append(frame(0x0800, ipv4(client, "8.8.8.8", UDP, udp(5_000 + host, 53, 30))))
        six = ipv6("2001:db8::1", f"2001:db8::{host + 2:x}", UDP, udp(6_000 + host, 123, 48))
        told.extend([frame(0x86DD, six)] * 2)
    told.append(frame(0x0800, ipv4("10.0.0.1", "10.0.1.1", ICMP, icmp(8, 0, 56))))
    return told


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF
