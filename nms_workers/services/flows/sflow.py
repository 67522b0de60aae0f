"""sFlow version 5: one pass over the datagrams finds where things stand, then each kind of structure is read at once.

A flow sample becomes a flow of one packet, with the length of the sampled frame as its octets.

Source: https://sflow.org/sflow_version_5.txt; https://sflow.org/SFLOW-STRUCTURES5.txt for enterprise 0.
"""

import struct
from collections import defaultdict
from collections.abc import Sequence as Several
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nms_workers.services.flows.batch import Batch
from nms_workers.services.flows.decoded import (
    ETHERNET_COUNTERS,
    INTERFACE_COUNTERS,
    Datagram,
    Reason,
    SamplePool,
)
from nms_workers.services.flows.headers import MAPPED, MARGIN, Buffer, read_headers, take
from nms_workers.services.flows.record import FLOW, Flows
from nms_workers.services.flows.sequence import Sequence
from nms_workers.services.flows.sets import scale
from nms_workers.services.flows.templates import Stream, StreamKey

VERSION = 105  # in `export_version`

_HEAD = struct.Struct(">IIII")  # sub-agent, sequence, uptime, samples
_PAIR = struct.Struct(">II")  # format, length
_FLOW, _COUNTERS, _FLOW_EXPANDED, _COUNTERS_EXPANDED = 1, 2, 3, 4
_SAMPLES = {
    _FLOW: struct.Struct(">IIIIIIII"),  # sequence, source, rate, pool, drops, input, output, structures
    _FLOW_EXPANDED: struct.Struct(">IIIIIIIIIII"),  # source, input and output in two words each
    _COUNTERS: struct.Struct(">III"),  # sequence, source, structures
    _COUNTERS_EXPANDED: struct.Struct(">IIII"),
}
_RAW, _GATEWAY, _MPLS = 1, 1003, 1006
_UNKNOWN = 0x3FFFFFFF  # an interface inside the agent
_DROPPED = 1  # the format of an output that says why there was none
_NOT_FORWARDED = 0x80  # of forwardingStatus (RFC 7270 section 4.12): dropped, reason unknown

_SAMPLE = np.dtype(
    [("origin", "u4"), ("received", "i8"), ("domain", "u4"), ("source", "u4"), ("rate", "u4"),
     ("input", "u4"), ("output", "u4"), ("dropped", "?")]
)  # fmt: skip
_HEADER = np.dtype([("protocol", ">u4"), ("frame", ">u4"), ("stripped", ">u4"), ("length", ">u4")])

_U: Any = ">u4"
_A: Any = np.dtype((">u8", 2))
_STRUCTURES: dict[tuple[int, int], np.dtype[Any]] = {
    key: np.dtype(columns)
    for key, columns in {
        (2, 24): [("octets", _U), ("source_mac", ">u8"), ("destination_mac", ">u8"), ("-type", _U)],
        (3, 32): [("octets", _U), ("protocol", _U), ("source_address", _U), ("destination_address", _U),
                  ("source_port", _U), ("destination_port", _U), ("tcp_control_bits", _U), ("class_of_service", _U)],
        (4, 56): [("octets", _U), ("protocol", _U), ("source_address", _A), ("destination_address", _A),
                  ("source_port", _U), ("destination_port", _U), ("tcp_control_bits", _U), ("class_of_service", _U)],
        (1001, 16): [("vlan", _U), ("-priority in", _U), ("post_vlan", _U), ("-priority out", _U)],
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

_PACKETS = {_RAW, 2, 3, 4}  # structures that tell of the packet itself
_VARYING = {_RAW: 16, _GATEWAY: 28, _MPLS: 16}  # those of no fixed length, and the least they have
_KNOWN = {*_VARYING, *(key[0] for key in _STRUCTURES)}
_COUNTED = {(1, 88): INTERFACE_COUNTERS, (2, 52): ETHERNET_COUNTERS}


def decode_sflow(datagrams: Several[Datagram], batch: Batch) -> None:
    """Read datagrams of sFlow 5. Their sequence counts datagrams, that of a source of samples counts these."""
    if not datagrams:
        return
    found = _Found(batch, b"".join([datagram.data for datagram in datagrams]))
    base = 0
    for datagram in datagrams:
        found.datagram(datagram, base)
        base += len(datagram.data)
    buffer = np.frombuffer(found.data + bytes(MARGIN), "u1")
    found.tell_flows(buffer)
    found.tell_counters(buffer)


class _Found:
    """Where the samples and structures of some datagrams stand. Offsets count from the first datagram's first byte."""

    def __init__(self, batch: Batch, data: bytes) -> None:
        self.batch = batch
        self.data = data
        self._samples: list[tuple[int, int, int, int, int, int, int, bool]] = []
        self._structures: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)  # (sample, offset)
        self._varying: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # (sample, offset, end)
        self._counters: dict[tuple[int, int], list[tuple[int, int, int, int, int]]] = defaultdict(list)
        self._pools: dict[tuple[int, int, int], SamplePool] = {}

    def datagram(self, datagram: Datagram, base: int) -> None:
        """Find what stands in one datagram."""
        data, address, port, received = datagram
        size = {1: 4, 2: 16}.get(int.from_bytes(data[4:8]), 0)
        if not size or len(data) < 8 + size + _HEAD.size:
            reason = Reason.TRUNCATED if size or len(data) < 8 else Reason.BAD_LENGTH
            self.batch.problem(self.batch.origin(address), reason)
            return
        domain, number, _, count = _HEAD.unpack_from(data, 8 + size)
        found = self.batch.stream(StreamKey(address, port, VERSION, domain, data[8 : 8 + size]), received)
        if found is None:
            return
        stream, origin = found
        stream.sequence.saw(number, 1)
        at, end = base + 8 + size + _HEAD.size, base + len(data)
        most = self.batch.templates.limits.records
        for index in range(count):
            if end - at < _PAIR.size:
                self.batch.problem(origin, Reason.TRUNCATED)
                return
            if index == most:
                self.batch.problem(origin, Reason.TOO_MANY_RECORDS, count - most)
                return
            kind, length = _PAIR.unpack_from(self.data, at)
            at += _PAIR.size
            if length > end - at:
                self.batch.problem(origin, Reason.TRUNCATED)
                return
            self._sample(kind, at, at + length, stream, (origin, received))
            at += length

    def _sample(self, kind: int, at: int, end: int, stream: Stream, where: tuple[int, int]) -> None:
        layout = _SAMPLES.get(kind)
        if layout is None:
            self.batch.skip(f"sample {kind >> 12}:{kind & 0xFFF}")
        elif end - at < layout.size:
            self.batch.problem(where[0], Reason.BAD_SAMPLE)
        elif kind in {_FLOW, _FLOW_EXPANDED}:
            self._flow(layout.unpack_from(self.data, at), at + layout.size, end, stream, where)
        else:
            source = layout.unpack_from(self.data, at)[-2] & (0xFFFFFF if kind == _COUNTERS else 0xFFFFFFFF)
            self._counter(source, at + layout.size, end, (*where, stream.key.domain))

    def _flow(self, told: tuple[int, ...], at: int, end: int, stream: Stream, where: tuple[int, int]) -> None:
        if len(told) == 8:
            number, source, rate, pool, drops, input_, output, count = told
            kind, source = source >> 24, source & 0xFFFFFF
            formats = (input_ >> 30, output >> 30)
            input_, output = input_ & _UNKNOWN, output & _UNKNOWN
        else:
            number, kind, source, rate, pool, drops, first, input_, second, output, count = told
            formats = (first, second)
        origin, domain = where[0], stream.key.domain
        sequence = stream.sources.get(key := kind << 32 | source)
        if sequence is None and len(stream.sources) < self.batch.templates.limits.samplers:
            sequence = stream.sources[key] = Sequence()
        if sequence is not None:
            sequence.saw(number, 1)
        self._pools[origin, domain, source] = SamplePool(origin, domain, source, rate, pool, drops)
        sample = len(self._samples)
        if self._structured(sample, count, at, end, origin):
            into = 0 if formats[0] or input_ == _UNKNOWN else input_
            out = 0 if formats[1] or output == _UNKNOWN else output
            self._samples.append((*where, domain, source, rate, into, out, formats[1] == _DROPPED))

    def _structured(self, sample: int, count: int, at: int, end: int, origin: int) -> bool:
        """Find the structures of a flow sample. Whether one of them tells of the packet itself."""
        told: list[tuple[int, int, int]] = []  # (format, offset, length)
        packet = False
        for _ in range(count):
            if end - at < _PAIR.size:
                self.batch.problem(origin, Reason.BAD_SAMPLE)
                break
            kind, length = _PAIR.unpack_from(self.data, at)
            at += _PAIR.size
            if length > end - at:
                self.batch.problem(origin, Reason.BAD_SAMPLE)
                break
            if kind not in _KNOWN:
                self.batch.skip(f"structure {kind >> 12}:{kind & 0xFFF}")
            elif length >= _VARYING.get(kind, length + 1) or (kind, length) in _STRUCTURES:
                told.append((kind, at, length))
                packet = packet or kind in _PACKETS
            else:
                self.batch.problem(origin, Reason.BAD_SAMPLE)
            at += length + (-length % 4)
        if not packet:
            self.batch.skip("sample without a packet")
            return False
        for kind, offset, length in told:
            if kind in _VARYING:
                self._varying[kind].append((sample, offset, offset + length))
            else:
                self._structures[kind, length].append((sample, offset))
        return True

    def _counter(self, source: int, at: int, end: int, where: tuple[int, int, int]) -> None:
        while end - at >= _PAIR.size:
            kind, length = _PAIR.unpack_from(self.data, at)
            at += _PAIR.size
            if length > end - at:
                self.batch.problem(where[0], Reason.BAD_SAMPLE)
                return
            if (kind, length) in _COUNTED:
                self._counters[kind, length].append((*where, source, at))
            else:
                self.batch.skip(f"counters {kind >> 12}:{kind & 0xFFF}")
            at += length + (-length % 4)

    def tell_flows(self, buffer: Buffer) -> None:
        """Give the batch the flows and what the agents say of their sampling."""
        self.batch.decoded.pools.extend(self._pools.values())
        if not self._samples:
            return
        samples = np.array(self._samples, _SAMPLE)
        flows = np.zeros(len(samples), FLOW)
        flows["flow_start"] = flows["flow_end"] = samples["received"]
        flows["packets"] = 1
        flows["sampling_interval"] = samples["rate"]
        flows["ingress_interface"], flows["egress_interface"] = samples["input"], samples["output"]
        flows["observation_domain"] = samples["domain"]
        source = samples["source"]
        flows["direction"] = np.select([samples["input"] == source, samples["output"] == source], [0, 1], 255)
        flows["forwarding_status"] = np.where(samples["dropped"], _NOT_FORWARDED, 0)
        flows["export_version"] = VERSION
        for key, places in sorted(self._structures.items()):
            _structure(buffer, np.array(places), _STRUCTURES[key], flows)
        self._read_headers(buffer, samples["origin"], flows)
        for kind, read in ((_GATEWAY, _gateway), (_MPLS, _mpls)):
            for sample, at, end in self._varying[kind]:
                if not read(_Words(self.data[at:end]), flows, sample):
                    self.batch.problem(int(samples["origin"][sample]), Reason.BAD_SAMPLE)
        scale(flows)
        self.batch.add(flows, samples["origin"], samples["received"])

    def _read_headers(self, buffer: Buffer, origins: NDArray[Any], flows: Flows) -> None:
        if not self._varying[_RAW]:
            return
        sample, at, end = np.array(self._varying[_RAW]).T
        header = take(buffer, at, _HEADER)
        start = at + _HEADER.itemsize
        stop = np.minimum(start + header["length"], end)
        mine = flows[sample]
        mine["octets"] = header["frame"]
        bad = read_headers(buffer, start, stop, header["protocol"], mine)
        flows[sample] = mine
        for origin, times in zip(*np.unique(origins[sample[bad]], return_counts=True), strict=True):
            self.batch.problem(int(origin), Reason.BAD_HEADER, int(times))

    def tell_counters(self, buffer: Buffer) -> None:
        """Give the batch the counters of interfaces."""
        told = self.batch.decoded
        for key, places in self._counters.items():
            counters = np.zeros(len(places), _COUNTED[key])
            where = np.array(places)
            for column, name in enumerate(("origin", "received", "domain", "interface")):
                counters[name] = where[:, column]
            wire = _WIRE[key]
            read = take(buffer, where[:, -1], wire)
            for name in wire.names or ():
                counters[name] = read[name]
            if key == (1, 88):
                told.interface_counters = counters
            else:
                told.ethernet_counters = counters


def _wire(layout: np.dtype[Any], first: int) -> np.dtype[Any]:
    return np.dtype([(name, layout[name].newbyteorder(">")) for name in (layout.names or ())[first:]])


_WIRE = {(1, 88): _wire(INTERFACE_COUNTERS, 3), (2, 52): _wire(ETHERNET_COUNTERS, 4)}  # the first names its interface


def _structure(buffer: Buffer, places: NDArray[np.int64], layout: np.dtype[Any], flows: Flows) -> None:
    rows = places[:, 0]
    told = take(buffer, places[:, 1], layout)
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
            flows[name][rows] = np.minimum(value, np.iinfo(FLOW[name]).max)


def _address(value: NDArray[Any]) -> NDArray[Any]:
    if value.ndim == 2:
        return value
    return np.stack((np.zeros(len(value), "u8"), np.where(value == 0, 0, value.astype("u8") | MAPPED)), axis=1)


class _Words:
    """A structure of varying length, read word by word; what is beyond its end makes it bad."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.good = True

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += size
        self.good = self.good and len(part) == size
        return part

    def word(self) -> int:
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


def _gateway(words: _Words, flows: Flows, sample: int) -> bool:
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


def _mpls(words: _Words, flows: Flows, sample: int) -> bool:
    words.address()
    labels = words.words()
    for index, label in enumerate(labels[:3]):
        flows[f"mpls_label_{index + 1}"][sample] = label >> 12
    return words.good
