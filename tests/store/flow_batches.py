"""Flows as decoders would give them."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.services.flows.record import FLOW
from nms_workers.store.flows import Batch, Exporter

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
ONE, TWO = bytes([192, 0, 2, 1]), bytes.fromhex("20010db8" + "0" * 23 + "1")
MAPPED = 0xFFFF << 32

ADDRESSES = [name for name in FLOW.names or () if FLOW[name].shape]
MACS = ("source_mac", "destination_mac")
TIMES = ("flow_start", "flow_end")


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def some(number: int, seed: int = 1, *, hosts: int = 20, sampling: int = 1) -> NDArray[np.void]:
    """Flows between a few hosts, a quarter of them IPv6."""
    draw = np.random.default_rng(seed)
    made = np.zeros(number, FLOW)
    six = draw.random(number) < 0.25
    for name in ("source_address", "destination_address"):
        host = draw.integers(1, hosts + 1, number).astype("u8")
        made[name][:, 0] = np.where(six, 0x20010DB8 << 32, 0)
        made[name][:, 1] = np.where(
            six, host, MAPPED | (10 << 24) | (draw.integers(0, 3, number).astype("u8") << np.uint64(8)) | host
        )
    made["ip_version"] = np.where(six, 6, 4)
    made["packets"] = draw.integers(1, 1000, number)
    made["octets"] = made["packets"] * draw.integers(40, 1500, number).astype("u8")
    made["sampling_interval"] = sampling
    made["packets_scaled"], made["octets_scaled"] = made["packets"] * sampling, made["octets"] * sampling
    made["protocol"] = draw.choice([1, 6, 17], number)
    made["source_port"] = np.where(made["protocol"] == 1, 0, draw.integers(1024, 65_536, number))
    made["destination_port"] = np.where(made["protocol"] == 1, 0x0800, draw.choice([53, 80, 443], number))
    made["ingress_interface"], made["egress_interface"] = draw.integers(1, 4, number), draw.integers(0, 6, number)
    made["source_as"] = draw.choice([0, 64_512, 4_200_000_000], number)
    made["destination_as"] = draw.choice([64_513, 15_169], number)
    made["flow_end"] = micros(MINUTE) - draw.integers(0, 10**6, number)
    made["flow_start"] = made["flow_end"] - draw.integers(0, 10**8, number)
    made["direction"], made["export_version"] = 255, 10
    return made


def anything(number: int, seed: int = 1) -> NDArray[np.void]:
    """Every bit at random, where PostgreSQL has a place for it: counts below 2**63, times before the year 9999."""
    made = np.frombuffer(np.random.default_rng(seed).bytes(number * FLOW.itemsize), FLOW).copy()
    for name in ("octets", "packets", "octets_scaled", "packets_scaled"):
        made[name] >>= 1
    for name in MACS:
        made[name] >>= 16
    for name in TIMES:
        made[name] = np.abs(made[name] >> 6)
    made["source_address"][::2, 0] = 0
    made["source_address"][::2, 1] = MAPPED | (made["source_address"][::2, 1] & 0xFFFFFFFF)
    made["next_hop"] = 0
    made["vlan"] = 7
    made["octets_scaled"] = made["octets"]
    return made


def batch(
    flows: NDArray[np.void],
    exporter: bytes = ONE,
    received: datetime | None = None,
    **told: Any,
) -> Batch:
    """Flows of one exporter, all received at once."""
    at = micros(received or MINUTE)
    return Batch(
        flows, np.zeros(len(flows), "u4"), np.full(len(flows), at), (Exporter(exporter, **{"versions": (10,)} | told),)
    )


def address(halves: Any) -> IPv4Address | IPv6Address:
    high, low = map(int, halves)
    found = IPv6Address(high << 64 | low)
    return found.ipv4_mapped or found


def rows(flows: NDArray[np.void]) -> list[dict[str, Any]]:
    """What the view `flows` should say of them."""
    told = []
    for flow in flows:
        row: dict[str, Any] = {}
        for name in FLOW.names or ():
            if name in ADDRESSES:
                row[name] = address(flow[name])
            elif name in MACS:
                row[name] = int(flow[name]).to_bytes(6, "big").hex(":")
            elif name in TIMES:
                row[name] = EPOCH + timedelta(microseconds=int(flow[name]))
            else:
                row[name] = int(flow[name])
        told.append(row)
    return told


def text_of(exporter: bytes) -> str:
    return str(ip_address(exporter))
