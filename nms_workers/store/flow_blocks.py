"""Flows and roll-ups as PostgreSQL's binary COPY takes them, arrays built by numpy.

Formats: https://www.postgresql.org/docs/current/sql-copy.html ("Binary Format"); `array_recv`, `inet_recv` and
`timestamptz_recv` in the server's sources for the fields.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

from nms_workers.store.flow_arrays import Columns, is_constant
from nms_workers.store.flow_columns import FLOW_COLUMNS, KEY_COLUMNS, MEASURES, Column, Type
from nms_workers.store.flow_rollups import Rollup

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_EPOCH = 946_684_800_000_000  # 2000, in microseconds since 1970
_LATEST = 253_370_764_800_000_000  # 9999, the last year that clients can read
_MOST = (1 << 63) - 1

_OIDS: dict[Type, int] = {
    "timestamptz": 1184, "inet": 869, "macaddr": 829, "bigint": 20, "integer": 23, "smallint": 21,
}  # fmt: skip
_INTEGERS: dict[Type, str] = {"timestamptz": ">i8", "bigint": ">i8", "integer": ">i4", "smallint": ">i2"}
_IPV4, _IPV6 = b"\x02\x20\x00\x04", b"\x03\x80\x00\x10"  # family, prefix length, not a network, bytes that follow
_INET4 = np.dtype([("bytes", ">i4"), ("about", "S4"), ("address", ">u4")])
_INET6 = np.dtype([("bytes", ">i4"), ("about", "S4"), ("address", ">u8", (2,))])
_MAC = np.dtype([("bytes", ">i4"), ("address", "u1", (6,))])


class Block(NamedTuple):
    """Flows of one exporter, received within one minute.

    Args:
        received: when the first of them came, microseconds since 1970.
        exporter: packed, 4 or 16 bytes.
        flows: with the fields of `FLOW_COLUMNS`.
    """

    received: int
    exporter: bytes
    flows: Columns


def copy_flows(connection: psycopg.Connection[Any], blocks: Iterable[Block]) -> None:
    """Write blocks in one COPY."""
    _send(connection, "flow_blocks", ("received", "exporter", "flows"), FLOW_COLUMNS, map(_flow_row, blocks))


def copy_rollups(connection: psycopg.Connection[Any], rollups: Iterable[Rollup]) -> None:
    """Write roll-ups of minutes in one COPY."""
    columns = (*KEY_COLUMNS, *(Column(name, "bigint") for name in MEASURES))
    _send(connection, "flow_rollup_blocks_1m", ("ts", "exporter", "kind"), columns, map(_rollup_row, rollups))


def inet(address: bytes) -> bytes:
    """An address, 4 or 16 bytes, as a field."""
    return struct.pack(">i", 4 + len(address)) + (_IPV4 if len(address) == 4 else _IPV6) + address


def _send(
    connection: psycopg.Connection[Any],
    table: str,
    scalars: Sequence[str],
    columns: Sequence[Column],
    rows: Iterable[bytes],
) -> None:
    names = ", ".join([*scalars, *(column.name for column in columns)])
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)") as stream:
        stream.write(_HEADER)
        for row in rows:
            stream.write(row)
        stream.write(_TRAILER)


def _flow_row(block: Block) -> bytes:
    fields = [
        struct.pack(">hiq", 3 + len(FLOW_COLUMNS), 8, block.received - _EPOCH),
        inet(block.exporter),
        struct.pack(">ii", 4, len(block.flows["octets"])),
    ]
    for column in FLOW_COLUMNS:
        values = block.flows[column.name]
        if _is_default(column, values, block.flows):
            fields.append(_NULL)
        else:
            same = is_constant(values) or bool((values == values[0]).all())
            fields.append(_array(column.type, values[:1] if same else values))
    return b"".join(fields)


def _is_default(column: Column, values: NDArray[Any], flows: Columns) -> bool:
    if column.default in flows:
        return bool((values == flows[column.default]).all())
    return not (values[:1] if is_constant(values) else values).any()


def _rollup_row(rollup: Rollup) -> bytes:
    kind = rollup.kind.encode()
    fields = [
        struct.pack(">hiq", 3 + len(KEY_COLUMNS) + len(MEASURES), 8, rollup.minute - _EPOCH),
        inet(rollup.exporter),
        struct.pack(">i", len(kind)) + kind,
    ]
    for column in KEY_COLUMNS:
        key = rollup.keys.get(column.name)
        fields.append(_NULL if key is None else _array(column.type, key, and_null=rollup.others is not None))
    for name, values in zip(MEASURES, rollup.measures, strict=True):
        others = [] if rollup.others is None else [rollup.others[MEASURES.index(name)]]
        fields.append(_array("bigint", np.append(values, np.array(others, "u8"))))
    return b"".join(fields)


def _array(kind: Type, values: NDArray[Any], *, and_null: bool = False) -> bytes:
    """An array of one dimension; `and_null`: with a null behind its values."""
    elements = _ELEMENTS.get(kind, _integers)(kind, values) + (_NULL if and_null else b"")
    number = len(values) + and_null
    return struct.pack(">iiiiii", 20 + len(elements), 1, and_null, _OIDS[kind], number, 1) + elements


@cache
def _element(kind: Type) -> np.dtype[np.void]:
    return np.dtype([("bytes", ">i4"), ("value", _INTEGERS[kind])])


def _integers(kind: Type, values: NDArray[Any]) -> bytes:
    made = np.empty(len(values), _element(kind))
    made["bytes"] = made.dtype.itemsize - 4
    if kind == "timestamptz":
        made["value"] = np.clip(values, 0, _LATEST) - _EPOCH
    elif values.dtype == np.uint64:
        made["value"] = np.minimum(values, _MOST)
    else:
        made["value"] = values
    return made.tobytes()


def _addresses(_: Type, values: NDArray[Any]) -> bytes:
    """IPv4-mapped addresses (RFC 4291 section 2.5.5.2) as IPv4."""
    low = values[:, 1].astype("u8")
    short = (values[:, 0] == 0) & (low >> np.uint64(32) == 0xFFFF)
    if short.all():
        return _ipv4(low)
    wide = np.empty(len(values), _INET6)
    wide["bytes"], wide["about"], wide["address"] = 20, _IPV6, values
    if not short.any():
        return wide.tobytes()
    rows = wide.view("u1").reshape(len(values), _INET6.itemsize)
    rows[short, : _INET4.itemsize] = np.frombuffer(_ipv4(low[short]), "u1").reshape(-1, _INET4.itemsize)
    used = np.where(short, _INET4.itemsize, _INET6.itemsize)
    return rows[np.arange(_INET6.itemsize) < used[:, None]].tobytes()


def _ipv4(low: NDArray[np.uint64]) -> bytes:
    made = np.empty(len(low), _INET4)
    made["bytes"], made["about"], made["address"] = 8, _IPV4, low & np.uint64(0xFFFFFFFF)
    return made.tobytes()


def _macs(_: Type, values: NDArray[Any]) -> bytes:
    made = np.empty(len(values), _MAC)
    made["bytes"] = 6
    made["address"] = values.astype(">u8").view("u1").reshape(-1, 8)[:, 2:]
    return made.tobytes()


_ELEMENTS = {"inet": _addresses, "macaddr": _macs}
