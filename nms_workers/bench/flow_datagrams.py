"""Datagrams of each format, made once as bytes, as a router of a busy site exports them; and who sends them.

The layouts: NetFlow v5 (https://www.cisco.com/c/en/us/td/docs/net_mgmt/netflow_collection_engine/3-6/user/guide/format.html),
v9 (RFC 3954), IPFIX (RFC 7011), sFlow 5 (https://sflow.org/sflow_version_5.txt).
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONVERSATIONS = 5_000
MILLISECONDS = 60_000  # since the exporter began
TEMPLATE = 256
START_SECONDS = 60.0
_BURST_SECONDS = 0.005

_V5 = np.dtype(
    [
        ("source", ">u4"), ("destination", ">u4"), ("next_hop", ">u4"), ("input", ">u2"), ("output", ">u2"),
        ("packets", ">u4"), ("octets", ">u4"), ("first", ">u4"), ("last", ">u4"), ("source_port", ">u2"),
        ("destination_port", ">u2"), ("pad1", "u1"), ("flags", "u1"), ("protocol", "u1"), ("tos", "u1"),
        ("source_as", ">u2"), ("destination_as", ">u2"), ("source_mask", "u1"), ("destination_mask", "u1"),
        ("pad2", ">u2"),
    ]
)  # fmt: skip

_ELEMENTS = {  # of v9 and IPFIX alike
    "source": 8, "destination": 12, "input": 10, "output": 14, "packets": 2, "octets": 1, "source_port": 7,
    "destination_port": 11, "flags": 6, "protocol": 4, "tos": 5, "source_mask": 9, "destination_mask": 13,
    "source_as": 16, "destination_as": 17, "first": 22, "last": 21, "first_ms": 152, "last_ms": 153,
}  # fmt: skip
_COMMON: list[tuple[str, str]] = [
    ("source", ">u4"), ("destination", ">u4"), ("input", ">u4"), ("output", ">u4"), ("packets", ">u4"),
    ("octets", ">u4"), ("source_port", ">u2"), ("destination_port", ">u2"), ("flags", "u1"), ("protocol", "u1"),
    ("tos", "u1"), ("source_mask", "u1"), ("destination_mask", "u1"), ("source_as", ">u4"), ("destination_as", ">u4"),
]  # fmt: skip
_V9 = np.dtype([*_COMMON, ("first", ">u4"), ("last", ">u4")])
_IPFIX = np.dtype([*_COMMON, ("first_ms", ">u8"), ("last_ms", ">u8")])


@dataclass(frozen=True)
class Traffic:
    """Datagrams of one format.

    Args:
        first: what is sent before all others: templates.
        datagrams: each with `records` flows.
        sequence_at: where the number in sequence stands, four bytes.
        step: what it grows by from one to the next.
    """

    first: tuple[bytes, ...]
    datagrams: tuple[bytes, ...]
    records: int
    sequence_at: int
    step: int


def v5(count: int) -> Traffic:
    """30 records each, as many as there may be."""
    seconds = int(time.time())
    header = struct.pack(">HHIIIIBBH", 5, 30, MILLISECONDS, seconds, 0, 0, 0, 0, 0)
    return Traffic((), tuple(header + body for body in _bodies(_V5, count, 30)), 30, 16, 30)


def v9(count: int) -> Traffic:
    """26 records each."""
    seconds = int(time.time())
    data = (
        struct.pack(">HHIIII", 9, 26, MILLISECONDS, seconds, 0, 1) + _set(TEMPLATE, body)
        for body in _bodies(_V9, count, 26)
    )
    template = struct.pack(">HHIIII", 9, 1, MILLISECONDS, seconds, 0, 1) + _set(0, _template(_V9))
    return Traffic((template,), tuple(data), 26, 12, 1)


def ipfix(count: int) -> Traffic:
    """24 records each."""
    seconds = int(time.time())

    def message(body: bytes) -> bytes:
        return struct.pack(">HHIII", 10, 16 + len(body), seconds, 0, 1) + body

    data = (message(_set(TEMPLATE, body)) for body in _bodies(_IPFIX, count, 24))
    return Traffic((message(_set(2, _template(_IPFIX))),), tuple(data), 24, 8, 24)


def sflow(count: int) -> Traffic:
    """9 samples each, of one packet in 1000, with the first 64 bytes of it: more do not fit in 1500 bytes."""
    rows = _rows(count * 9)
    samples = [_sample(rows, number) for number in range(count * 9)]
    head = struct.pack(">II4sIIII", 5, 1, bytes((127, 0, 0, 1)), 0, 0, MILLISECONDS, 9)
    return Traffic(
        (), tuple(head + b"".join(samples[at : at + 9]) for at in range(0, len(samples), 9)), 9, 16, 1
    )  # fmt: skip


FORMATS: Mapping[str, Callable[[int], Traffic]] = {"v5": v5, "v9": v9, "ipfix": ipfix, "sflow": sflow}


def send(
    ready: "threading.Event", begin: "threading.Event", port: int, traffic: Traffic, numbers: tuple[int, int]
) -> None:
    """The process of the generator: in bursts, each so late that the pace is kept.

    Args:
        ready, begin: set by us when we can begin; waited for.
        port: of 127.0.0.1.
        numbers: how many datagrams, and how many of them a second.
    """
    count, pace = numbers
    made = [bytearray(one) for one in traffic.datagrams]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect(("127.0.0.1", port))
        ready.set()
        begin.wait(START_SECONDS)
        for one in traffic.first:
            wire.send(one)
        began, sent = time.perf_counter(), 0
        while sent < count:
            due = min(count, int((time.perf_counter() - began) * pace))
            for number in range(sent, due):
                datagram = made[number % len(made)]
                struct.pack_into(">I", datagram, traffic.sequence_at, number * traffic.step & 0xFFFFFFFF)
                wire.send(datagram)
            sent = max(sent, due)
            time.sleep(_BURST_SECONDS)


def _rows(count: int) -> Mapping[str, NDArray[np.uint64]]:
    """Flows of `CONVERSATIONS` pairs of hosts, the same at every call."""
    random = np.random.default_rng(1)
    pair = random.integers(0, CONVERSATIONS, count)
    sources = random.integers(0x0A000000, 0x0A00FFFF, CONVERSATIONS)
    destinations = random.integers(0x0A100000, 0x0A10FFFF, CONVERSATIONS)
    packets = random.geometric(0.05, count)
    now = int(time.time() * 1000)
    last = random.integers(0, 10_000, count)
    first = last + random.integers(0, 20_000, count)
    found = {
        "source": sources[pair],
        "destination": destinations[pair],
        "next_hop": np.full(count, 0x0A0000FE),
        "input": pair % 48 + 1,
        "output": pair % 7 + 49,
        "packets": packets,
        "octets": packets * random.integers(46, 1500, count),
        "source_port": random.integers(32_768, 61_000, count),
        "destination_port": random.choice([53, 80, 123, 443, 443, 443, 993, 8080], count),
        "flags": random.choice([0x1B, 0x1A, 0x02], count, p=[0.6, 0.35, 0.05]),
        "protocol": random.choice([6, 17], count, p=[0.8, 0.2]),
        "tos": np.zeros(count),
        "source_mask": np.full(count, 16),
        "destination_mask": np.full(count, 16),
        "source_as": pair % 500 + 64_512,
        "destination_as": pair % 300 + 64_512,
        "first": MILLISECONDS - first,
        "last": MILLISECONDS - last,
        "first_ms": now - first,
        "last_ms": now - last,
    }
    return {name: values.astype(np.uint64) for name, values in found.items()}


def _bodies(dtype: np.dtype[np.void], count: int, records: int) -> list[bytes]:
    rows = _rows(count * records)
    made = np.zeros(count * records, dtype)
    for name in made.dtype.names or ():
        if name in rows:
            made[name] = rows[name]
    return [made[at : at + records].tobytes() for at in range(0, len(made), records)]


def _template(dtype: np.dtype[np.void]) -> bytes:
    names = dtype.names or ()
    fields = b"".join(struct.pack(">HH", _ELEMENTS[name], dtype[name].itemsize) for name in names)
    return struct.pack(">HH", TEMPLATE, len(names)) + fields


def _set(number: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(">HH", number, 4 + len(body)) + body


def _sample(rows: Mapping[str, NDArray[np.uint64]], number: int) -> bytes:
    one = {name: int(values[number]) for name, values in rows.items()}
    size = min(1514, max(64, one["octets"] // one["packets"]))
    ethernet = struct.pack(">6s6sH", b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2", 0x0800)
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, size - 14, 0, 0, 64, one["protocol"], 0, one["source"], one["destination"])
    ports = struct.pack(">HH", one["source_port"], one["destination_port"])
    transport = ports + struct.pack(">IIBBHHH", 0, 0, 0x50, one["flags"], 65_535, 0, 0)
    header = (ethernet + ip + transport).ljust(64, b"\0")
    raw = struct.pack(">IIII", 1, size, 4, len(header)) + header
    record = struct.pack(">II", 1, len(raw)) + raw
    body = struct.pack(">IIIIIIII", number + 1, one["input"], 1000, number * 1000, 0, one["input"], one["output"], 1)
    return struct.pack(">II", 1, len(body) + len(record)) + body + record
