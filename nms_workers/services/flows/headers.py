"""The first bytes of sampled packets: all of a batch at once, one numpy step a layer.

Sources: IEEE 802.3, 802.1Q and 802.1ad; RFC 3032 (MPLS), RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nms_workers.services.flows.record import Flows

Offsets = NDArray[np.int64]
Buffer = NDArray[np.uint8]

MARGIN = 128  # bytes that a buffer must have after the last packet: nothing that is read at once is longer

ETHERNET, IPV4, IPV6 = 1, 11, 12  # sFlow's header_protocol

_MAC = [("high", ">u2"), ("low", ">u4")]
_FRAME = np.dtype([("destination", _MAC), ("source", _MAC), ("kind", ">u2")])
_TAG = np.dtype([("tag", ">u2"), ("kind", ">u2")])
_LABEL = np.dtype([("label", ">u4"), ("next", "u1")])
_FOUR = np.dtype(
    [("version", "u1"), ("tos", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"),
     ("protocol", "u1"), ("checksum", ">u2"), ("source", ">u4"), ("destination", ">u4")]
)  # fmt: skip
_SIX = np.dtype(
    [("version", ">u4"), ("length", ">u2"), ("protocol", "u1"), ("ttl", "u1"), ("source", ">u8", 2),
     ("destination", ">u8", 2)]
)  # fmt: skip
_EXTENSION = np.dtype([("protocol", "u1"), ("length", "u1"), ("fragment", ">u2")])
_PORTS = np.dtype([("source", ">u2"), ("destination", ">u2")])
_TCP = np.dtype([("source", ">u2"), ("destination", ">u2"), ("numbers", ">u8"), ("flags", ">u2")])
_ICMP = np.dtype(">u2")

_TAGGED = (0x8100, 0x88A8, 0x9100, 0x9200)
_LABELLED = (0x8847, 0x8848)
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = (0, 43, _FRAGMENT, _AUTHENTICATION, 60)  # and hop-by-hop options, routing, destination options
_WITH_PORTS = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite
MAPPED = np.uint64(0xFFFF_0000_0000)


def take(buffer: Buffer, offsets: Offsets, layout: np.dtype[Any]) -> NDArray[Any]:
    """What stands at each offset, read as `layout`: shape (n,)."""
    rows = sliding_window_view(buffer, layout.itemsize)[offsets]
    return rows.view(layout)[:, 0]


@dataclass(slots=True)
class _Packets:
    """The packets of a batch, and how far each was read. All arrays have the shape (n,)."""

    buffer: Buffer
    at: Offsets  # where the next layer begins
    end: Offsets
    kind: NDArray[Any]  # what that is: an EtherType; 0: nothing we read
    above: Offsets  # where what follows the IP header begins; -1: nowhere
    bad: NDArray[np.bool_]
    out: Flows


def read_headers(buffer: Buffer, start: Offsets, end: Offsets, protocol: NDArray[Any], out: Flows) -> NDArray[np.bool_]:
    """Set the fields of flows from the first bytes of their packets.

    Args:
        buffer: holds the packets, and `MARGIN` bytes after them.
        start, end: where each packet begins and where what is there of it ends, shape (n,).
        protocol: what each begins with, in sFlow's numbers.
        out: shape (n,).

    Returns:
        which are of a protocol we do not read, or are cut off before the end of the IP header.
    """
    kind = np.select([protocol == IPV4, protocol == IPV6], [0x0800, 0x86DD], 0)
    bad: NDArray[np.bool_] = ~np.isin(protocol, (ETHERNET, IPV4, IPV6))
    packets = _Packets(buffer, start.copy(), end, kind, np.full(len(out), -1), bad, out)
    _frames(packets, np.flatnonzero(protocol == ETHERNET))
    _tags(packets)
    _labels(packets)
    _four(packets, np.flatnonzero(packets.kind == 0x0800))
    _six(packets, np.flatnonzero(packets.kind == 0x86DD))
    _ports(packets)
    return packets.bad


def _whole(packets: _Packets, rows: Offsets, size: int) -> Offsets:
    """Those of the rows that hold so many bytes more; the others are bad."""
    whole = packets.at[rows] + size <= packets.end[rows]
    packets.bad[rows[~whole]] = True
    return rows[whole]


def _frames(packets: _Packets, rows: Offsets) -> None:
    rows = _whole(packets, rows, _FRAME.itemsize)
    frame = take(packets.buffer, packets.at[rows], _FRAME)
    for name in ("source", "destination"):
        mac = frame[name]
        packets.out[f"{name}_mac"][rows] = mac["high"].astype("u8") << np.uint64(32) | mac["low"]
    packets.kind[rows] = frame["kind"]
    packets.at[rows] += _FRAME.itemsize


def _tags(packets: _Packets) -> None:
    for depth in range(4):
        rows = np.flatnonzero(np.isin(packets.kind, _TAGGED) & (packets.at + _TAG.itemsize <= packets.end))
        if not len(rows):
            return
        tag = take(packets.buffer, packets.at[rows], _TAG)
        if depth == 0:  # the outermost: the VLAN of the link
            packets.out["vlan"][rows] = tag["tag"] & 0xFFF
        packets.kind[rows] = tag["kind"]
        packets.at[rows] += _TAG.itemsize


def _labels(packets: _Packets) -> None:
    at, end, kind = packets.at, packets.end, packets.kind
    for depth in range(8):
        rows = np.flatnonzero(np.isin(kind, _LABELLED) & (at + 4 <= end))
        if not len(rows):
            return
        entry = take(packets.buffer, at[rows], _LABEL)
        if depth < 3:
            packets.out[f"mpls_label_{depth + 1}"][rows] = entry["label"] >> 12
        at[rows] += 4
        version = np.where(at[rows] < end[rows], entry["next"] >> 4, 0)
        inside = np.select([version == 4, version == 6], [0x0800, 0x86DD], 0)
        kind[rows] = np.where(entry["label"] & 0x100, inside, kind[rows])  # the bottom of the stack says no type


def _four(packets: _Packets, rows: Offsets) -> None:
    rows, out = _whole(packets, rows, _FOUR.itemsize), packets.out
    header = take(packets.buffer, packets.at[rows], _FOUR)
    size = (header["version"] & 15).astype("i8") * 4
    good = (header["version"] >> 4 == 4) & (size >= 20)
    packets.bad[rows[~good]] = True
    rows, header, size = rows[good], header[good], size[good]
    out["ip_version"][rows] = 4
    for name in ("source", "destination"):
        address = out[f"{name}_address"]
        address[rows, 0], address[rows, 1] = 0, header[name].astype("u8") | MAPPED
    out["class_of_service"][rows] = header["tos"]
    out["protocol"][rows] = header["protocol"]
    out["minimum_ttl"][rows] = out["maximum_ttl"][rows] = header["ttl"]
    packets.above[rows] = np.where(header["fragment"] & 0x1FFF, -1, packets.at[rows] + size)


def _six(packets: _Packets, rows: Offsets) -> None:
    rows, out = _whole(packets, rows, _SIX.itemsize), packets.out
    header = take(packets.buffer, packets.at[rows], _SIX)
    good = header["version"] >> 28 == 6
    packets.bad[rows[~good]] = True
    rows, header = rows[good], header[good]
    out["ip_version"][rows] = 6
    for name in ("source", "destination"):
        out[f"{name}_address"][rows] = header[name]
    out["class_of_service"][rows] = header["version"] >> 20 & 0xFF
    out["flow_label"][rows] = header["version"] & 0xFFFFF
    out["minimum_ttl"][rows] = out["maximum_ttl"][rows] = header["ttl"]
    out["protocol"][rows] = header["protocol"]
    packets.above[rows] = packets.at[rows] + _SIX.itemsize
    _extensions(packets, rows)


def _extensions(packets: _Packets, rows: Offsets) -> None:
    above, protocol = packets.above, packets.out["protocol"]
    for _ in range(8):
        rows = rows[np.isin(protocol[rows], _EXTENSIONS) & (above[rows] >= 0)]
        rows = rows[above[rows] + 8 <= packets.end[rows]]
        if not len(rows):
            return
        kind = protocol[rows]
        extension = take(packets.buffer, above[rows], _EXTENSION)
        length = extension["length"].astype("i8")
        size = np.select([kind == _FRAGMENT, kind == _AUTHENTICATION], [8, (length + 2) * 4], (length + 1) * 8)
        protocol[rows] = extension["protocol"]
        later = (kind == _FRAGMENT) & (extension["fragment"] >> 3 != 0)
        above[rows] = np.where(later, -1, above[rows] + size)


def _ports(packets: _Packets) -> None:
    above, end, out = packets.above, packets.end, packets.out
    protocol = out["protocol"]
    whole = above >= 0
    rows = np.flatnonzero(whole & np.isin(protocol, _WITH_PORTS) & (above + _PORTS.itemsize <= end))
    ports = take(packets.buffer, above[rows], _PORTS)
    out["source_port"][rows], out["destination_port"][rows] = ports["source"], ports["destination"]
    rows = np.flatnonzero(whole & (protocol == 6) & (above + _TCP.itemsize <= end))
    out["tcp_control_bits"][rows] = take(packets.buffer, above[rows], _TCP)["flags"] & 0xFFF
    rows = np.flatnonzero(whole & ((protocol == 1) | (protocol == 58)) & (above + _ICMP.itemsize <= end))
    out["icmp_type_code"][rows] = take(packets.buffer, above[rows], _ICMP)
