"""IPFIX (RFC 7011)."""

import struct
from collections.abc import Sequence

from nms_workers.services.flows.decoded import Datagram, Reason
from nms_workers.services.flows.elements import Field
from nms_workers.services.flows.sets import Context, DataSets
from nms_workers.services.flows.templates import Stream, StreamKey

_HEADER = struct.Struct(">HHIII")  # version, length, seconds, sequence, observation domain
_SET = struct.Struct(">HH")
_TEMPLATES, _OPTIONS = 2, 3


def decode_ipfix(datagrams: Sequence[Datagram], sets: DataSets) -> None:
    """Read messages. Their sequence counts data records, so one whose template is missing leaves it open."""
    batch = sets.batch
    for datagram in datagrams:
        data, address, port, received = datagram
        if len(data) < _HEADER.size:
            batch.problem(batch.origin(address), Reason.TRUNCATED)
            continue
        version, length, seconds, number, domain = _HEADER.unpack_from(data)
        if (found := batch.stream(StreamKey(address, port, version, domain), received)) is None:
            continue
        stream, origin = found
        if length > len(data):
            batch.problem(origin, Reason.TRUNCATED)
        elif length < _HEADER.size:
            batch.problem(origin, Reason.BAD_LENGTH)
            continue
        export = seconds * 1_000_000
        context = sets.trusted(Context(origin, received, export, export, -1, domain, version, 0))
        records = _read_sets(data[:length], stream, context, sets)
        if records is None or length > len(data):
            stream.sequence.unsure(records or 0)
        else:
            stream.sequence.saw(number, records)


def _read_sets(data: bytes, stream: Stream, context: Context, sets: DataSets) -> int | None:
    """How many data records the message holds; None where that cannot be told."""
    at, most = _HEADER.size, sets.batch.templates.limits.records
    records, sure = 0, True
    while len(data) - at >= _SET.size:
        kind, length = _SET.unpack_from(data, at)
        if length < _SET.size or at + length > len(data):
            sets.batch.problem(context.origin, Reason.BAD_LENGTH)
            return None
        body = data[at + _SET.size : at + length]
        at += length
        if kind >= 256:
            count = sets.data(stream, kind, body, context, max(0, most - records))
            records += count or 0
            sure = sure and count is not None
        elif kind in {_TEMPLATES, _OPTIONS}:
            _read_templates(body, stream, context, sets, kind)
        else:
            sets.batch.problem(context.origin, Reason.RESERVED_SET)
    return records if sure else None


def _read_templates(body: bytes, stream: Stream, context: Context, sets: DataSets, kind: int) -> None:
    at, emptied = 0, False
    while len(body) - at >= _SET.size:
        template, count = _SET.unpack_from(body, at)
        at += _SET.size
        if count == 0:
            if template == 0:  # padding
                return
            every = template == kind
            if not emptied:
                sets.batch.templates.withdraw(stream, None if every else template, options=kind == _OPTIONS)
            emptied = emptied or every
            continue
        scope, emptied = 0, False
        if kind == _OPTIONS:
            scope = int.from_bytes(body[at : at + 2])
            at += 2
        fields, at = _read_fields(body, at, count)
        if at > len(body):
            sets.batch.problem(context.origin, Reason.BAD_LENGTH)
            return
        problem = "bad_template" if kind == _OPTIONS and scope == 0 else ""
        problem = problem or sets.batch.templates.learn(stream, template, fields, scope, context.received)
        if problem:
            sets.batch.problem(context.origin, Reason(problem))
        else:
            sets.learned(stream, template)


def _read_fields(body: bytes, at: int, count: int) -> tuple[tuple[Field, ...], int]:
    """So many field specifiers, and where they end; beyond the body if they are cut off (RFC 7011 section 3.2)."""
    fields: list[Field] = []
    while len(fields) < count:
        if at + 4 > len(body):
            return (), len(body) + 1
        number, length = _SET.unpack_from(body, at)
        at += 4
        enterprise = 0
        if number & 0x8000:
            enterprise = int.from_bytes(body[at : at + 4])
            at += 4
        fields.append(Field(enterprise, number & 0x7FFF, length))
    return tuple(fields), at
