"""Sample blocks as PostgreSQL's binary COPY takes them, built by numpy instead of row by row.

Formats: https://www.postgresql.org/docs/current/sql-copy.html ("Binary Format"); `array_send` and `timestamptz_send`
in the server's sources for the fields.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import psycopg

from nms_workers.store.slot import NETWORK_FLOAT

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_FLOAT8_OID = 701
_ARRAY_HEADER = 20


class Row(NamedTuple):
    """One row of `sample_blocks`; `values` is float64 in network byte order."""

    layout_id: int
    ts: datetime
    values: bytes


def copy(connection: psycopg.Connection[Any], rows: Iterable[Row]) -> int:
    """Write rows in one COPY. Of two rows with one key the first is kept; one already stored stays as it is.

    Returns:
        How many rows were there before.
    """
    unique: dict[tuple[int, datetime], Row] = {}
    for row in rows:
        unique.setdefault((row.layout_id, row.ts), row)
    if not unique:
        return 0
    content = encoded(list(unique.values()))
    try:
        with connection.transaction():
            _send(connection, "sample_blocks", content)
    except psycopg.errors.UniqueViolation:
        return _copy_around(connection, content)
    return 0


def encoded(rows: Sequence[Row]) -> bytes:
    """The rows as one binary COPY stream."""
    by_length: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_length[len(row.values) // NETWORK_FLOAT.itemsize].append(row)
    return b"".join([_HEADER, *(_tuples(length, group) for length, group in by_length.items()), _TRAILER])


@lru_cache(maxsize=4096)
def _tuple_of(length: int) -> np.dtype[np.void]:
    element = np.dtype([("bytes", ">i4"), ("value", NETWORK_FLOAT)])
    return np.dtype(
        [
            ("fields", ">i2"),
            ("layout_id_bytes", ">i4"),
            ("layout_id", ">i4"),
            ("ts_bytes", ">i4"),
            ("ts", ">i8"),
            ("values_bytes", ">i4"),
            ("dimensions", ">i4"),
            ("has_nulls", ">i4"),
            ("element", ">i4"),
            ("length", ">i4"),
            ("lower_bound", ">i4"),
            ("values", element, (length,)),
        ]
    )


def _tuples(length: int, rows: Sequence[Row]) -> bytes:
    made = np.zeros(len(rows), _tuple_of(length))
    made["fields"] = 3
    made["layout_id_bytes"] = 4
    made["layout_id"] = [row.layout_id for row in rows]
    made["ts_bytes"] = 8
    made["ts"] = [_microseconds(row.ts) for row in rows]
    made["values_bytes"] = _ARRAY_HEADER + length * (4 + NETWORK_FLOAT.itemsize)
    made["dimensions"] = 1
    made["element"] = _FLOAT8_OID
    made["length"] = length
    made["lower_bound"] = 1
    made["values"]["bytes"] = NETWORK_FLOAT.itemsize
    values = np.frombuffer(b"".join(row.values for row in rows), NETWORK_FLOAT)
    made["values"]["value"] = values.reshape(len(rows), length)
    return made.tobytes()


def _microseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _copy_around(connection: psycopg.Connection[Any], content: bytes) -> int:
    connection.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS staged_blocks "
        "(LIKE sample_blocks INCLUDING STORAGE) ON COMMIT DELETE ROWS"
    )
    _send(connection, "staged_blocks", content)
    there = connection.execute("SELECT count(*) FROM staged_blocks JOIN sample_blocks USING (layout_id, ts)").fetchone()
    connection.execute("INSERT INTO sample_blocks SELECT * FROM staged_blocks ON CONFLICT DO NOTHING")
    return int(there[0]) if there else 0


def _send(connection: psycopg.Connection[Any], table: str, content: bytes) -> None:
    with connection.cursor() as cursor, cursor.copy(_COPY[table]) as stream:
        stream.write(content)


_COPY = {
    "sample_blocks": 'COPY sample_blocks (layout_id, ts, "values") FROM STDIN (FORMAT binary)',
    "staged_blocks": 'COPY staged_blocks (layout_id, ts, "values") FROM STDIN (FORMAT binary)',
}
