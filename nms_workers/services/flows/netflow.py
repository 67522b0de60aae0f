"""NetFlow v5, v7 and v9.

Sources: Cisco, "NetFlow Export Datagram Format" (v5, v7); RFC 3954 (v9).
"""

import struct
from collections.abc import Sequence

from nms_workers.services.flows.decoded import Datagram, Reason
from nms_workers.services.flows.elements import SCOPES, Field
from nms_workers.services.flows.plan import plan
from nms_workers.services.flows.sets import Context, DataSets
from nms_workers.services.flows.templates import Stream, StreamKey

_V5 = struct.Struct(
    ">HHIIIIBBH"
)  # version, count, uptime, seconds, nanoseconds, sequence, engine type and id, sampling
_V9 = struct.Struct(">HHIIII")  # version, count, uptime, seconds, sequence, source id
_SET = struct.Struct(">HH")
_PADDING = 210  # the element that means nothing

_START = ((8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2))
_V5_END = ((_PADDING, 1), (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1), (_PADDING, 2))
_V7_END = (*_V5_END, (_PADDING, 4))

PLANS = {
    5: plan(tuple(Field(0, *field) for field in (*_START, *_V5_END))),
    7: plan(tuple(Field(0, *field) for field in (*_START, *_V7_END))),
}
"""The records of v5 (48 bytes) and v7 (52) are those of a template that never changes."""


def decode_fixed(datagrams: Sequence[Datagram], sets: DataSets) -> None:
    """Read datagrams of v5 and v7. Their sequence counts flows."""
    batch = sets.batch
    limits = batch.templates.limits
    for datagram in datagrams:
        data, address, port, received = datagram
        if len(data) < _V5.size:
            batch.problem(batch.origin(address), Reason.TRUNCATED)
            continue
        version, count, uptime, seconds, nanoseconds, number, engine, engine_id, sampling = _V5.unpack_from(data)
        domain = engine << 8 | engine_id if version == 5 else 0
        if (found := batch.stream(StreamKey(address, port, version, domain), received)) is None:
            continue
        stream, origin = found
        fixed = PLANS[version]
        stream.sequence.saw(number, count)
        whole = min(count, (len(data) - _V5.size) // fixed.size)
        if whole < count:
            batch.problem(origin, Reason.TRUNCATED)
        if whole > limits.records:
            batch.problem(origin, Reason.TOO_MANY_RECORDS, whole - limits.records)
            whole = limits.records
        export = seconds * 1_000_000 + nanoseconds // 1000
        interval = sampling & 0x3FFF if version == 5 else 0  # the upper two bits are the mode
        context = sets.trusted(Context(origin, received, export, export, uptime, domain, version, interval))
        if whole:
            sets.add(fixed, data[_V5.size : _V5.size + whole * fixed.size], whole, context)


def decode_v9(datagrams: Sequence[Datagram], sets: DataSets) -> None:
    """Read datagrams of v9. Their sequence counts datagrams."""
    batch = sets.batch
    for datagram in datagrams:
        data, address, port, received = datagram
        if len(data) < _V9.size:
            batch.problem(batch.origin(address), Reason.TRUNCATED)
            continue
        version, _, uptime, seconds, number, domain = _V9.unpack_from(data)
        if (found := batch.stream(StreamKey(address, port, version, domain), received)) is None:
            continue
        stream, origin = found
        stream.sequence.saw(number, 1)
        export = seconds * 1_000_000
        context = sets.trusted(Context(origin, received, export, export, uptime, domain, version, 0))
        _read_sets(data, stream, context, sets)


def _read_sets(data: bytes, stream: Stream, context: Context, sets: DataSets) -> None:
    at, room = _V9.size, sets.batch.templates.limits.records
    while len(data) - at >= _SET.size:
        kind, length = _SET.unpack_from(data, at)
        if length < _SET.size or at + length > len(data):
            sets.batch.problem(context.origin, Reason.BAD_LENGTH)
            return
        body = data[at + _SET.size : at + length]
        at += length
        if kind >= 256:
            room = max(0, room - (sets.data(stream, kind, body, context, room) or 0))
        elif kind in {0, 1}:
            _read_templates(body, stream, context, sets, options=kind == 1)
        else:
            sets.batch.problem(context.origin, Reason.RESERVED_SET)


def _read_templates(body: bytes, stream: Stream, context: Context, sets: DataSets, *, options: bool) -> None:
    at, head = 0, 6 if options else 4
    while len(body) - at >= head:
        template, first = _SET.unpack_from(body, at)
        if template == 0 and first == 0:  # padding
            return
        if options:
            scopes, fields = first // 4, int.from_bytes(body[at + 4 : at + 6]) // 4
        else:
            scopes, fields = 0, first
        at += head
        end = at + 4 * (scopes + fields)
        if end > len(body):
            sets.batch.problem(context.origin, Reason.BAD_LENGTH)
            return
        found = tuple(struct.iter_unpack(">HH", body[at:end]))
        read = tuple(
            Field(0, SCOPES.get(number, _PADDING) if index < scopes else number, min(length, 65534))
            for index, (number, length) in enumerate(found)
        )
        at = end
        scope = max(scopes, 1) if options else 0
        if problem := sets.batch.templates.learn(stream, template, read, scope, context.received):
            sets.batch.problem(context.origin, Reason(problem))
        else:
            sets.learned(stream, template)
