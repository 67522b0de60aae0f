"""The structures of sFlow's flow samples: tables of those with a fixed form, readers of the others.

Source: https://sflow.org/sflow_version_5.txt; https://sflow.org/developers/structures.php for enterprise 0.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.services.flows.headers import MAPPED, Buffer, Offsets, take
from nms_workers.services.flows.plan import clipped
from nms_workers.services.flows.record import FLOW, Flows

_U: Any = ">u4"
_A: Any = np.dtype((">u8", 2))
RAW, GATEWAY, MPLS = 1, 1003, 1006
VARYING = {RAW: 16, GATEWAY: 28, MPLS: 16}  # structures of no fixed length, and the least they have
STRUCTURES: dict[tuple[int, int], np.dtype[Any]] = {
    key: np.dtype(columns)
    for key, columns in {
        (2, 24): [("octets", _U), ("source_mac", ">u8"), ("destination_mac", ">u8"), ("-type", _U)],
        (3, 32): [("octets", _U), ("protocol", _U), ("source_address", _U), ("destination_address", _U),
                  ("source_port", _U), ("destination_port", _U), ("tcp_control_bits", _U), ("class_of_service", _U)],
        (4, 56): [("octets", _U), ("protocol", _U), ("source_address", _A), ("destination_address", _A),
                  ("source_port", _U), ("destination_port", _U), ("tcp_control_bits", _U), ("class_of_service", _U)],
        (1001, 16): [("vlan", _U), ("-priority in", _U), ("post_vlan", _U), ("-priority out", _U)],
        (1002, 12): [("-type", _U), ("source_prefix_length", _U), ("destination_prefix_length", _U)],
        (1002, 16): [("-type", _U), ("next_hop", _U), ("source_prefix_length", _U), ("destination_prefix_length", _U)],
        (1002, 28): [("-type", _U), ("next_hop", _A), ("source_prefix_length", _U), ("destination_prefix_length", _U)],
        (1007, 16): [("-type", _U), ("post_nat_source_address", _U), ("-type out", _U),
                     ("post_nat_destination_address", _U)],
        (1007, 40): [("-type", _U), ("post_nat_source_address", _A), ("-type out", _U),
                     ("post_nat_destination_address", _A)],
        (1020, 8): [("post_nat_source_port", _U), ("post_nat_destination_port", _U)],
    }.items()
}  # fmt: skip
"""Structures of flow samples by (format, length): columns are named as the fields of a flow, or `-` and something."""
KNOWN = {*VARYING, *(key[0] for key in STRUCTURES)}
PACKETS = {RAW, 2, 3, 4}  # structures that tell of the packet itself


@dataclass(slots=True)
class Structures:
    """The structures of some samples, all arrays of shape (n,): in which sample, of which format, where."""

    sample: NDArray[Any]
    kind: NDArray[Any]
    at: Offsets
    length: NDArray[Any]

    def only(self, which: NDArray[np.bool_]) -> "Structures":
        """Some of them."""
        return Structures(self.sample[which], self.kind[which], self.at[which], self.length[which])


def read_structure(buffer: Buffer, found: Structures, layout: np.dtype[Any], flows: Flows) -> None:
    """Set the fields of flows that structures of one form tell; `found`: those of this form."""
    rows = found.sample
    if not len(rows):
        return
    told = take(buffer, found.at, layout)
    for name in layout.names or ():
        if name.startswith("-"):
            continue
        value = told[name]
        if name.endswith("_mac"):
            value = value >> np.uint64(16)  # six bytes, padded to eight
        elif name in {"vlan", "post_vlan"}:
            value = np.where(value > 0xFFE, 0, value)
        if FLOW[name].shape:
            flows[name][rows] = _address(value)
            if name == "source_address":
                flows["ip_version"][rows] = 4 if value.ndim == 1 else 6
        else:
            flows[name][rows] = clipped(value, FLOW[name].itemsize)


def _address(value: NDArray[Any]) -> NDArray[Any]:
    if value.ndim == 2:
        return value
    return np.stack((np.zeros(len(value), "u8"), np.where(value == 0, 0, value.astype("u8") | MAPPED)), axis=1)


class Words:
    """A structure of varying length, read word by word; what is beyond its end makes it bad."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.good = True

    def take(self, size: int) -> bytes:
        """The next bytes."""
        part = self._data[self._at : self._at + size]
        self._at += size
        self.good = self.good and len(part) == size
        return part

    def word(self) -> int:
        """The next 32 bits."""
        return int.from_bytes(self.take(4))

    def words(self) -> list[int]:
        """As many words as the next one says."""
        count = self.word()
        data = self.take(4 * count)
        return list(struct.unpack(f">{count}I", data)) if self.good else []

    def address(self) -> tuple[int, int]:
        """An address as the two halves of a flow's field."""
        size = {1: 4, 2: 16}.get(self.word(), 0)
        value = int.from_bytes(self.take(size))
        if size == 4:
            value = value and value | int(MAPPED)
        return value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF


def read_gateway(words: Words, flows: Flows, sample: int) -> bool:
    """Set what `extended_gateway` tells of one sample; the destination is the last of the path. Whether it is whole."""
    hop, _, source, _ = words.address(), words.word(), words.word(), words.word()
    destination = 0
    for _ in range(words.word()):
        if not words.good:
            return False
        words.word()  # a set or a sequence
        path = words.words()
        destination = path[-1] if path else destination
    if words.good:
        flows["bgp_next_hop"][sample] = hop
        flows["source_as"][sample], flows["destination_as"][sample] = source, destination
    return words.good


def read_mpls(words: Words, flows: Flows, sample: int) -> bool:
    """Set the labels a packet came with (`extended_mpls`, of which `in_stack` is read). Whether it is whole."""
    words.address()
    labels = words.words()
    for index, label in enumerate(labels[:3]):
        flows[f"mpls_label_{index + 1}"][sample] = label >> 12
    return words.good
