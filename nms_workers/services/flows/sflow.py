"""sFlow version 5: one pass over the datagrams finds the samples, then all of them are read a step at once.

A flow sample becomes a flow of one packet, with the length of the sampled frame as its octets.

Source: https://sflow.org/sflow_version_5.txt; https://sflow.org/developers/structures.php for enterprise 0.
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
from nms_workers.services.flows.headers import MARGIN, Buffer, Offsets, read_headers, take
from nms_workers.services.flows.record import FLOW, Flows
from nms_workers.services.flows.sequence import Sequence
from nms_workers.services.flows.sets import scale
from nms_workers.services.flows.sflow_structures import (
    GATEWAY,
    KNOWN,
    MPLS,
    PACKETS,
    RAW,
    STRUCTURES,
    VARYING,
    Structures,
    Words,
    read_gateway,
    read_mpls,
    read_structure,
)
from nms_workers.services.flows.templates import Stream, StreamKey

VERSION = 105  # in `export_version`

_HEAD = struct.Struct(">IIII")  # sub-agent, sequence, uptime, samples
_PAIR = struct.Struct(">II")  # format, length
_FORM = np.dtype([("kind", ">u4"), ("length", ">u4")])
_MOST = 64  # structures of one sample: far more than there are kinds

_U: Any = ">u4"
_FLOW, _FLOW_EXPANDED, _COUNTERS, _COUNTERS_EXPANDED = 1, 3, 2, 4
_SAMPLES: dict[int, np.dtype[Any]] = {
    kind: np.dtype([(name, _U) for name in names.split()])
    for kind, names in {
        _FLOW: "number source rate pool drops input output count",
        _FLOW_EXPANDED: "number class source rate pool drops input_format input output_format output count",
        _COUNTERS: "number source count",
        _COUNTERS_EXPANDED: "number class source count",
    }.items()
}
_INSIDE = 0x3FFFFFFF  # an interface inside the agent
_DROPPED = 1  # the format of an output that says why there was none
_NOT_FORWARDED = 0x80  # of forwardingStatus (RFC 7270 section 4.12): dropped, reason unknown

_HEADER = np.dtype([("protocol", _U), ("frame", _U), ("stripped", _U), ("length", _U)])
_COUNTED = {(1, 88): INTERFACE_COUNTERS, (2, 52): ETHERNET_COUNTERS}


def decode_sflow(datagrams: Several[Datagram], batch: Batch) -> None:
    """Read datagrams of sFlow 5. Their sequence counts datagrams, that of a source of samples counts these."""
    if not datagrams:
        return
    data = b"".join([datagram.data for datagram in datagrams])
    samples = _Samples(batch, np.frombuffer(data + bytes(MARGIN), "u1"))
    base = 0
    for datagram in datagrams:
        samples.find(datagram, base)
        base += len(datagram.data)
    samples.tell_flows(data)
    samples.tell_counters()


class _Samples:
    """The samples of some datagrams. Offsets count from the first datagram's first byte.

    Args:
        batch: what is told goes here.
        buffer: the bytes of all datagrams, and `MARGIN` more.
    """

    def __init__(self, batch: Batch, buffer: Buffer) -> None:
        self._batch = batch
        self._buffer = buffer
        self._datagrams: list[tuple[int, int, int]] = []  # origin, received, domain
        self._streams: list[Stream] = []  # of each datagram
        self._found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # by kind: datagram, offset, end

    def find(self, datagram: Datagram, base: int) -> None:
        """Find the samples of a datagram that begins at `base`."""
        data, address, port, received = datagram
        size = {1: 4, 2: 16}.get(int.from_bytes(data[4:8]), 0)
        if not size or len(data) < 8 + size + _HEAD.size:
            reason = Reason.TRUNCATED if size or len(data) < 8 else Reason.BAD_LENGTH
            self._batch.problem(self._batch.origin(address), reason)
            return
        domain, number, _, count = _HEAD.unpack_from(data, 8 + size)
        found = self._batch.stream(StreamKey(address, port, VERSION, domain, data[8 : 8 + size]), received)
        if found is None:
            return
        stream, origin = found
        stream.sequence.saw(number, 1)
        index = len(self._datagrams)
        self._datagrams.append((origin, received, domain))
        self._streams.append(stream)
        if (most := self._batch.templates.limits.records) < count:
            self._batch.problem(origin, Reason.TOO_MANY_RECORDS, count - most)
        at, end = 8 + size + _HEAD.size, len(data)
        for _ in range(min(count, most)):
            kind, length = _PAIR.unpack_from(data, at) if end - at >= _PAIR.size else (0, end)
            at += _PAIR.size
            if length > end - at:
                self._batch.problem(origin, Reason.TRUNCATED)
                return
            self._found[kind].append((index, base + at, base + at + length))
            at += length

    def tell_flows(self, data: bytes) -> None:
        """Give the batch the flows, and what the agents say of their sampling."""
        for kind in [kind for kind in self._found if kind not in _SAMPLES]:
            self._batch.skip(f"sample {kind >> 12}:{kind & 0xFFF}", len(self._found[kind]))
        told = [self._heads(kind) for kind in (_FLOW, _FLOW_EXPANDED) if self._found[kind]]
        if not told:
            return
        heads = np.concatenate([one[0] for one in told])
        at, end = np.concatenate([one[1] for one in told]), np.concatenate([one[2] for one in told])
        self._sequences(heads)
        flows = np.zeros(len(heads), FLOW)
        flows["flow_start"] = flows["flow_end"] = heads["received"]
        flows["packets"] = 1
        flows["sampling_interval"] = heads["rate"]
        flows["ingress_interface"], flows["egress_interface"] = heads["input"], heads["output"]
        flows["observation_domain"] = heads["domain"]
        source = heads["source"]
        flows["direction"] = np.select([heads["input"] == source, heads["output"] == source], [0, 1], 255)
        flows["forwarding_status"] = np.where(heads["dropped"], _NOT_FORWARDED, 0)
        flows["export_version"] = VERSION
        structures = self._known(self._walk(at, end, heads["count"], heads["origin"]), heads["origin"])
        for key, layout in STRUCTURES.items():
            some = structures.only((structures.kind == key[0]) & (structures.length == key[1]))
            read_structure(self._buffer, some, layout, flows)
        self._headers(structures.only(structures.kind == RAW), heads["origin"], flows)
        for kind, read in ((GATEWAY, read_gateway), (MPLS, read_mpls)):
            some = structures.only(structures.kind == kind)
            for sample, start, length in zip(some.sample.tolist(), some.at.tolist(), some.length.tolist(), strict=True):
                if not read(Words(data[start : start + length]), flows, sample):
                    self._batch.problem(int(heads["origin"][sample]), Reason.BAD_SAMPLE)
        scale(flows)
        packets = np.zeros(len(flows), bool)
        packets[structures.sample[np.isin(structures.kind, list(PACKETS))]] = True
        if not packets.all():
            self._batch.skip("sample without a packet", int((~packets).sum()))
        self._batch.add(flows[packets], heads["origin"][packets], heads["received"][packets])

    def _heads(self, kind: int) -> tuple[NDArray[np.void], Offsets, Offsets]:
        """The fixed parts of the samples of a kind, in one form for all kinds, and where their structures are."""
        layout = _SAMPLES[kind]
        datagram, at, end = np.array(self._found[kind]).T
        whole = at + layout.itemsize <= end
        heads = np.zeros(len(at), _HEADS)
        for column, name in enumerate(("origin", "received", "domain")):
            heads[name] = np.array(self._datagrams)[datagram, column]
        self._bad(heads["origin"][~whole])
        heads, datagram, at, end = heads[whole], datagram[whole], at[whole], end[whole]
        told = take(self._buffer, at, layout)
        names = layout.names or ()
        for name in names:
            heads[name] = told[name]
        if "class" not in names:
            heads["class"], heads["source"] = heads["source"] >> 24, heads["source"] & 0xFFFFFF
            for name in ("input", "output"):
                heads[f"{name}_format"], heads[name] = heads[name] >> 30, heads[name] & _INSIDE
        heads["datagram"] = datagram
        heads["dropped"] = heads["output_format"] == _DROPPED
        for name in ("input", "output"):  # more than one, or none that has a number
            heads[name][(heads[f"{name}_format"] != 0) | (heads[name] == _INSIDE)] = 0
        return heads, at + layout.itemsize, end

    def _sequences(self, heads: NDArray[np.void]) -> None:
        most = self._batch.templates.limits.samplers
        sources = heads["class"].astype("u8") << np.uint64(32) | heads["source"]
        for index, source, number in zip(
            heads["datagram"].tolist(), sources.tolist(), heads["number"].tolist(), strict=True
        ):
            known = self._streams[index].sources
            if (sequence := known.get(source)) is None:
                if len(known) >= most:
                    continue
                sequence = known[source] = Sequence()
            sequence.saw(number, 1)
        told = heads[["origin", "domain", "source", "rate", "pool", "drops"]].tolist()
        latest = {one[:3]: one for one in told}
        self._batch.decoded.pools.extend(SamplePool(*one) for one in latest.values())

    def _walk(self, at: Offsets, end: Offsets, count: NDArray[Any], origins: NDArray[Any]) -> Structures:
        """All structures of samples: the first ones of all, then the second ones ..."""
        steps = [Structures(*(np.zeros(0, "i8") for _ in range(4)))]
        rows = np.arange(len(at))
        for step in range(_MOST):
            rows = rows[count[rows] > step]
            rows = self._whole(rows, at[rows] + _FORM.itemsize <= end[rows], origins)
            if not len(rows):
                break
            form = take(self._buffer, at[rows], _FORM)
            start, length = at[rows] + _FORM.itemsize, form["length"].astype("i8")
            fits = start + length <= end[rows]
            at[rows] = start + length + (-length % 4)
            steps.append(Structures(rows[fits], form["kind"][fits].astype("i8"), start[fits], length[fits]))
            rows = self._whole(rows, fits, origins)
        return Structures(
            *(np.concatenate([getattr(step, name) for step in steps]) for name in ("sample", "kind", "at", "length"))
        )

    def _whole(self, rows: NDArray[Any], whole: NDArray[np.bool_], origins: NDArray[Any]) -> NDArray[Any]:
        self._bad(origins[rows[~whole]])
        return rows[whole]

    def _known(self, found: Structures, origins: NDArray[Any]) -> Structures:
        """The structures that we read; the others are counted."""
        good = np.zeros(len(found.kind), bool)
        for kind, times in zip(*np.unique(found.kind, return_counts=True), strict=True):
            mine = found.kind == kind
            if kind not in KNOWN:
                self._batch.skip(f"structure {kind >> 12}:{kind & 0xFFF}", int(times))
                continue
            if kind in VARYING:
                fits = found.length >= VARYING[int(kind)]
            else:
                fits = np.isin(found.length, [key[1] for key in STRUCTURES if key[0] == kind])
            good |= mine & fits
            self._bad(origins[found.sample[mine & ~fits]])
        return found.only(good)

    def _bad(self, origins: NDArray[Any], reason: Reason = Reason.BAD_SAMPLE) -> None:
        for origin, times in zip(*np.unique(origins, return_counts=True), strict=True):
            self._batch.problem(int(origin), reason, int(times))

    def _headers(self, found: Structures, origins: NDArray[Any], flows: Flows) -> None:
        header = take(self._buffer, found.at, _HEADER)
        start = found.at + _HEADER.itemsize
        stop = np.minimum(start + header["length"], found.at + found.length)
        mine = flows[found.sample]
        mine["octets"] = header["frame"]
        bad = read_headers(self._buffer, start, stop, header["protocol"], mine)
        flows[found.sample] = mine
        self._bad(origins[found.sample[bad]], Reason.BAD_HEADER)

    def tell_counters(self) -> None:
        """Give the batch the counters of interfaces."""
        for kind in (_COUNTERS, _COUNTERS_EXPANDED):
            if not self._found[kind]:
                continue
            heads, at, end = self._heads(kind)
            found = self._walk(at, end, heads["count"], heads["origin"])
            ours = np.zeros(len(found.kind), bool)
            for (form, length), layout in _COUNTED.items():
                mine = (found.kind == form) & (found.length == length)
                ours |= mine
                self._counters(heads[found.sample[mine]], found.at[mine], layout, _WIRE[form])
            for form, times in zip(*np.unique(found.kind[~ours], return_counts=True), strict=True):
                self._batch.skip(f"counters {form >> 12}:{form & 0xFFF}", int(times))

    def _counters(self, heads: NDArray[np.void], at: Offsets, layout: np.dtype[Any], wire: np.dtype[Any]) -> None:
        told = self._batch.decoded
        counters = np.zeros(len(at), layout)
        counters["interface"] = heads["source"]
        for name in ("origin", "received", "domain"):
            counters[name] = heads[name]
        read = take(self._buffer, at, wire)
        for name in wire.names or ():
            counters[name] = read[name]
        if layout is INTERFACE_COUNTERS:
            told.interface_counters = np.concatenate((told.interface_counters, counters))
        else:
            told.ethernet_counters = np.concatenate((told.ethernet_counters, counters))


_HEADS = np.dtype(
    [("origin", "u4"), ("received", "i8"), ("domain", "u4"), ("datagram", "i8"), ("dropped", "?"),
     *((name, "u4") for name in _SAMPLES[_FLOW_EXPANDED].names or ())]
)  # fmt: skip


def _wire(layout: np.dtype[Any], first: int) -> np.dtype[Any]:
    return np.dtype([(name, layout[name].newbyteorder(">")) for name in (layout.names or ())[first:]])


_WIRE = {1: _wire(INTERFACE_COUNTERS, 3), 2: _wire(ETHERNET_COUNTERS, 4)}  # the first names its interface itself
