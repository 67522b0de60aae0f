"""Some batches of flows into PostgreSQL, in one transaction, each batch exactly once."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import chain, pairwise
from json import dumps
from typing import Any, cast

import numpy as np
import psycopg
from cachetools import LRUCache
from numpy.typing import NDArray
from prometheus_client import Counter
from sqlalchemy import Engine

from nms_workers.store import partitions
from nms_workers.store.flow_arrays import Columns, columns_of, slice_of
from nms_workers.store.flow_blocks import Block, copy_flows, copy_rollups
from nms_workers.store.flow_rollups import roll_up
from nms_workers.store.flow_spool import Waiting
from nms_workers.store.flows import Batch, BatchError, Exporter

log = logging.getLogger(__name__)

written_flows = Counter("nms_flows_written", "Flows written to PostgreSQL")
repeated_batches = Counter(
    "nms_flows_repeated_batches", "Batches that had been written before and were left as they are"
)
misdated_flows = Counter("nms_flows_misdated", "Flows dropped: received before the retention, or in the future")

BLOCK_FLOWS = 20_000
MINUTE = 60_000_000

_MAPPED = bytes(10) + b"\xff\xff"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FlowHistory:
    """Writes batches. One thread at a time.

    Args:
        keep: how many keys of a kind of roll-up are kept, of one exporter and window.
        retention: how long a table's rows are kept, where it is not as in `partitions.TABLES`.
    """

    def __init__(self, engine: Engine, *, keep: int = 10_000, retention: partitions.Retention | None = None) -> None:
        self.engine, self.keep, self._retention = engine, keep, retention
        self._partitions: LRUCache[str, bool] = LRUCache(1000)

    def forget(self) -> None:
        """Trust no remembered partition any more: somebody else changed the database."""
        self._partitions.clear()

    def write(self, waiting: Sequence[Waiting]) -> int:
        """Write these batches, all or none. One that is there already is left alone.

        Returns:
            How many flows were written.

        Raises:
            BatchError, psycopg.Error, sqlalchemy.exc.DBAPIError: nothing was written.
        """
        now = datetime.now(UTC)
        for one in waiting:
            if not partitions.kept("flow_batches", one.at, now):
                raise BatchError(f"a batch of flows is of {one.at.isoformat()}: too old, or in the future")
        batches = {one.id: (one.at, Batch.from_body(one.body)) for one in waiting}
        places = {
            (table, moment)
            for _, batch in batches.values()
            for moment in map(_moment, np.unique(batch.received // MINUTE * MINUTE).tolist())
            for table in ("flow_blocks", "flow_rollup_blocks_1m")
            if partitions.kept(table, moment, now, self._retention)
        }
        self._make_partitions([*places, *(("flow_batches", one.at) for one in waiting)])
        with self.engine.begin() as session:
            # SQLAlchemy's transaction, psycopg's cursor: arrays and COPY want the driver itself
            connection = cast("psycopg.Connection[Any]", session.connection.driver_connection)
            entered = connection.execute(_ENTER, [[one.at for one in waiting], [one.id for one in waiting]]).fetchall()
            fresh = [batches[key] for (key,) in entered]
            written, dropped = _enter(connection, fresh, places, self.keep)
        repeated_batches.inc(len(waiting) - len(entered))
        written_flows.inc(written)
        if dropped:
            misdated_flows.inc(dropped)
            log.warning("%d flows were received before the retention of flows, or in the future: dropped", dropped)
        return written

    def _make_partitions(self, wanted: Iterable[tuple[str, datetime]]) -> None:
        """In a transaction of their own: others need them too, and would wait for the end of ours."""
        new = {
            name: (table, moment)
            for table, moment in wanted
            if (name := partitions.partition_name(table, moment)) not in self._partitions
        }
        if new:
            with self.engine.begin() as session:
                partitions.ensure(session, new.values())
            self._partitions.update(dict.fromkeys(new, True))


def _enter(
    connection: psycopg.Connection[Any],
    fresh: Sequence[tuple[datetime, Batch]],
    places: Set[tuple[str, datetime]],
    keep: int,
) -> tuple[int, int]:
    """Write what is new; returns how many flows were written, and how many have no place any more."""
    groups = list(_groups([batch for _, batch in fresh]))
    raw = [one for one in groups if ("flow_blocks", _moment(one.minute)) in places]
    copy_flows(connection, chain.from_iterable(one.blocks() for one in raw))
    summed = [one for one in groups if ("flow_rollup_blocks_1m", _moment(one.minute)) in places]
    rolled = (roll_up(one.flows, one.exporter, one.minute, keep) for one in summed)
    copy_rollups(connection, chain.from_iterable(rolled))
    if exporters := _exporters(fresh):  # what others wait for comes last
        connection.execute(_SEEN, [list(column) for column in zip(*exporters, strict=True)])
    if summed:
        due = [[_moment(one.minute) for one in summed], [str(ip_address(one.exporter)) for one in summed]]
        connection.execute(_DUE, due)
    written = sum(map(len, raw))
    return written, sum(map(len, groups)) - written


@dataclass(frozen=True, slots=True)
class _Group:
    """Flows of one exporter, received in one minute: what becomes a row of each kind of roll-up."""

    exporter: bytes
    minute: int  # its beginning, microseconds since 1970
    flows: Columns
    received: NDArray[np.int64]

    def blocks(self) -> Iterator[Block]:
        for at in range(0, len(self), BLOCK_FLOWS):
            part = slice(at, at + BLOCK_FLOWS)
            yield Block(int(self.received[part].min()), self.exporter, slice_of(self.flows, part))

    def __len__(self) -> int:
        return len(self.received)


def _groups(batches: Sequence[Batch]) -> Iterator[_Group]:
    numbers: dict[bytes, int] = {}
    for batch in batches:
        for one in batch.exporters:
            numbers.setdefault(_short(one.address), len(numbers))
    held = [batch for batch in batches if len(batch.flows)]
    if not held:
        return
    flows = columns_of([batch.flows for batch in held])
    received = np.concatenate([batch.received for batch in held])
    exporter = np.concatenate(
        [np.array([numbers[_short(one.address)] for one in batch.exporters])[batch.exporter] for batch in held]
    )
    minute = received // MINUTE
    group = exporter * (minute.max() - minute.min() + 1) + (minute - minute.min())
    if (group[1:] < group[:-1]).any():
        order = np.argsort(group, kind="stable")  # quick where much is in order already
        flows = slice_of(flows, order)
        received, exporter, minute, group = received[order], exporter[order], minute[order], group[order]
    begins = np.flatnonzero(group[1:] != group[:-1]) + 1
    addresses = list(numbers)
    for start, end in pairwise([0, *begins.tolist(), len(received)]):
        part = slice(start, end)
        yield _Group(addresses[exporter[start]], int(minute[start]) * MINUTE, slice_of(flows, part), received[part])


def _exporters(fresh: Iterable[tuple[datetime, Batch]]) -> list[tuple[object, ...]]:
    """One row an exporter, in the order in which everybody locks them."""
    rows: dict[str, _Seen] = {}
    for at, batch in fresh:
        flows = np.bincount(batch.exporter, minlength=len(batch.exporters)).tolist()
        for number, one in zip(flows, batch.exporters, strict=True):
            address = str(ip_address(_short(one.address)))
            rows[address] = rows.get(address, _Seen(at)).and_(one, at, number)
    return [(address, *astuple(rows[address])[:-1], dumps(rows[address].interfaces)) for address in sorted(rows)]


@dataclass(frozen=True, slots=True)
class _Seen:
    first: datetime
    last: datetime = _EPOCH
    versions: str = ""
    datagrams: int = 0
    flows: int = 0
    lost: int = 0
    templates: int = 0
    target_id: int | None = None
    interfaces: Mapping[int, str] = field(default_factory=dict)

    def and_(self, one: Exporter, at: datetime, flows: int) -> "_Seen":
        return _Seen(
            min(self.first, at),
            max(self.last, at),
            ",".join(sorted({*filter(None, self.versions.split(",")), *map(str, one.versions)}, key=int)),
            self.datagrams + one.datagrams,
            self.flows + flows,
            self.lost + one.lost,
            one.templates,
            one.target_id or self.target_id,
            {**self.interfaces, **one.interfaces},
        )


def _short(address: bytes) -> bytes:
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


_ENTER = """
INSERT INTO flow_batches (at, id) SELECT * FROM unnest(%b::timestamptz[], %b::uuid[])
ON CONFLICT DO NOTHING RETURNING id
"""

_SEEN = """
INSERT INTO flow_exporters AS known
    (address, first_seen, last_seen, versions, datagrams, flows, lost, templates, target_id, interfaces)
SELECT address, first, last, string_to_array(versions, ',')::smallint[], datagrams, flows, lost, templates,
    (SELECT id FROM targets WHERE id = target_id FOR KEY SHARE), interfaces::jsonb
FROM unnest(%b::inet[], %b::timestamptz[], %b::timestamptz[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[],
            %b::int[], %b::int[], %b::text[])
    AS seen (address, first, last, versions, datagrams, flows, lost, templates, target_id, interfaces)
ON CONFLICT (address) DO UPDATE
SET first_seen = least(known.first_seen, excluded.first_seen),
    last_seen = greatest(known.last_seen, excluded.last_seen),
    versions = ARRAY(SELECT DISTINCT unnest(known.versions || excluded.versions) ORDER BY 1),
    datagrams = known.datagrams + excluded.datagrams, flows = known.flows + excluded.flows,
    lost = known.lost + excluded.lost, templates = excluded.templates,
    target_id = coalesce(excluded.target_id, known.target_id),
    interfaces = CASE
        WHEN excluded.interfaces = '{}' THEN known.interfaces
        WHEN length(known.interfaces::text) > 200000 THEN excluded.interfaces  -- thousands; it tells them again
        ELSE known.interfaces || excluded.interfaces
    END
"""

# The row is locked even if it was there, or who rolls the window up could take it away without seeing what we wrote.
_DUE = """
INSERT INTO flow_rollup_due (level, ts, exporter)
SELECT DISTINCT level, date_bin(width, ts, '2000-01-01Z'), exporter
FROM unnest(%b::timestamptz[], %b::inet[]) AS rolled (ts, exporter),
    (VALUES ('1m', interval '1 minute'), ('5m', '5 minutes'), ('1h', '1 hour')) AS levels (level, width)
ORDER BY 1, 2, 3
ON CONFLICT (level, ts, exporter) DO UPDATE SET ts = excluded.ts
"""
