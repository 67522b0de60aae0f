"""One batch of slots into PostgreSQL, in one transaction, so that writing it again writes nothing."""

import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, NamedTuple, cast

import msgspec
import psycopg
from cachetools import LRUCache
from prometheus_client import Counter
from sqlalchemy import Engine

from nms_workers.errors import NmsError, Outcome
from nms_workers.records import Layout, Series
from nms_workers.store import blocks, inventory, partitions
from nms_workers.store.slot import SlotResult

log = logging.getLogger(__name__)

written_slots = Counter("nms_store_written_slots", "Slots written to PostgreSQL", ["outcome"])
written_samples = Counter("nms_store_written_samples", "Sample values written to PostgreSQL")
repeated_slots = Counter("nms_store_repeated_slots", "Slots that had been written before and were left as they are")
repeated_blocks = Counter("nms_store_repeated_blocks", "Sample blocks of a layout and time that were there already")
misdated_rows = Counter("nms_store_misdated_rows", "Rows dropped: past their retention or in the future", ["table"])

# A slot that ended in one of these gives way to a run that read the target: the task came twice, and one of the two
# found the other at work; or what PostgreSQL refused is tried again.
_NOT_READ = (Outcome.LOST, Outcome.EXPIRED, Outcome.SKIPPED, Outcome.ERROR)
_CACHED_LAYOUTS = 200_000
_TARGETS_AT_ONCE = 10  # whose new series are entered together: a fleet that begins has a million of them
_CACHED_PARTITIONS = 10_000


class LayoutKey(NamedTuple):
    """What names a layout across hosts."""

    target_id: int
    poll: str
    digest: bytes


class UnknownLayoutError(NmsError):
    """A block names a layout that nobody brought along."""


class History:
    """Writes batches and remembers the ids of layouts. One thread at a time.

    Args:
        layout: finds a layout by digest, None when it is not known.
        retention: how long a table's rows are kept, where it is not as in `partitions.TABLES`.
    """

    def __init__(
        self, engine: Engine, layout: Callable[[bytes], Layout | None], retention: partitions.Retention | None = None
    ) -> None:
        self.engine, self._layout, self._retention = engine, layout, retention
        self._ids: LRUCache[LayoutKey, int] = LRUCache(_CACHED_LAYOUTS)
        self._partitions: LRUCache[str, bool] = LRUCache(_CACHED_PARTITIONS)

    def forget(self) -> None:
        """Trust no remembered id or partition any more: somebody else changed the database."""
        self._ids.clear()
        self._partitions.clear()

    def write(self, results: Sequence[SlotResult]) -> None:
        """Write these slots, all or none. A slot that is there already is left alone with everything it brought.

        Raises:
            psycopg.Error, sqlalchemy.exc.DBAPIError, UnknownLayoutError: nothing was written.
        """
        now = datetime.now(UTC)
        places = _Places(now, self._retention)
        learned: dict[LayoutKey, int] = {}
        self._make_partitions(results, places)
        with self.engine.begin() as session:
            # SQLAlchemy's transaction, psycopg's cursor: arrays and COPY want the driver itself
            connection = cast("psycopg.Connection[Any]", session.connection.driver_connection)
            fresh = _enter(connection, results, places)
            rows = self._rows(connection, fresh, places, learned)
            repeated = blocks.copy(connection, rows)
            _mark_late(connection, rows)
            inventory.write(connection, fresh, lambda ts: places.keep("events", ts))
        self._ids.update(learned)
        _count(results, fresh, rows, repeated)
        places.tell()

    def _make_partitions(self, results: Sequence[SlotResult], places: "_Places") -> None:
        moments = {("poll_runs", result.due) for result in results}
        moments.update(("sample_blocks", block.ts) for result in results for block in result.blocks)
        moments.update(("events", event.ts or result.finished) for result in results for event in result.events)
        # the store itself may find that something is resolved, at the end of a run
        moments.update(("events", result.finished) for result in results if result.complete and result.enumerated)
        wanted = {
            name: (table, moment)
            for table, moment in moments
            if (name := places.partition(table, moment)) and name not in self._partitions
        }
        if wanted:
            with self.engine.begin() as session:
                partitions.ensure(session, wanted.values())
            self._partitions.update(dict.fromkeys(wanted, True))

    def _rows(
        self,
        connection: psycopg.Connection[Any],
        fresh: Sequence[SlotResult],
        places: "_Places",
        learned: dict[LayoutKey, int],
    ) -> list[blocks.Row]:
        held = [
            (LayoutKey(result.target_id, result.poll, block.digest), block)
            for result in fresh
            for block in result.blocks
            if block.values and places.keep("sample_blocks", block.ts)
        ]
        ids = {key: self._ids.get(key) for key, _ in held}
        unknown = [key for key, known in ids.items() if known is None]
        if unknown:
            learned.update(self._resolve(connection, unknown))
        return [blocks.Row(ids[key] or learned[key], block.ts, block.values) for key, block in held]

    def _resolve(self, connection: psycopg.Connection[Any], keys: Iterable[LayoutKey]) -> dict[LayoutKey, int]:
        """The ids of these layouts; those the database has not seen are entered with their series."""
        keys = sorted(keys)  # everybody locks in the same order
        found = _layout_ids(connection, keys)
        new = [key for key in keys if key not in found]
        by_target = [list(group) for _, group in groupby(new, key=attrgetter("target_id"))]
        for at in range(0, len(by_target), _TARGETS_AT_ONCE):
            found.update(self._enter_layouts(connection, list(chain(*by_target[at : at + _TARGETS_AT_ONCE]))))
        return found

    def _enter_layouts(self, connection: psycopg.Connection[Any], new: Sequence[LayoutKey]) -> dict[LayoutKey, int]:
        members = {key: self._members(key) for key in new}
        ids = _series_ids(connection, members)
        columns = zip(*((*key, [ids[key.target_id, one] for one in members[key]]) for key in new), strict=True)
        targets, polls, digests, series_ids = columns
        with connection.cursor() as cursor:
            cursor.executemany(_ADD_LAYOUT, list(zip(targets, polls, digests, series_ids, strict=True)))
        return _layout_ids(connection, new)

    def _members(self, key: LayoutKey) -> tuple[Series, ...]:
        layout = self._layout(key.digest)
        if layout is None:
            raise UnknownLayoutError(f"a block of {key.poll} names a layout that did not come with it")
        return layout.members


class _Places:
    """Which partition a row of this batch goes to. Decided once an hour of time: partitions are hours or more."""

    def __init__(self, now: datetime, retention: partitions.Retention | None) -> None:
        self._now, self._retention = now, retention
        self._known: dict[tuple[str, int], str | None] = {}
        self._misdated: Tally[str] = Tally()

    def partition(self, table: str, moment: datetime) -> str | None:
        """The name of its partition; None when it is past the retention, or in the future."""
        key = (table, int(moment.timestamp()) // 3600)
        if key not in self._known:
            kept = partitions.kept(table, moment, self._now, self._retention)
            self._known[key] = partitions.partition_name(table, moment) if kept else None
        return self._known[key]

    def keep(self, table: str, moment: datetime) -> bool:
        """Whether the row has a place; one that has none is counted."""
        kept = self.partition(table, moment) is not None
        if not kept:
            self._misdated[table] += 1
        return kept

    def tell(self) -> None:
        """Say what had no place. After the commit: before it, nothing was dropped."""
        for table, number in self._misdated.items():
            misdated_rows.labels(table).inc(number)
            log.warning("%d rows for %s are past its retention or in the future: dropped", number, table)


def _enter(connection: psycopg.Connection[Any], results: Sequence[SlotResult], places: _Places) -> list[SlotResult]:
    """Enter the slots in the ledger; returns those that were not there before."""
    slots: dict[tuple[int, str, datetime], SlotResult] = {}
    for result in results:
        key = (result.target_id, result.poll, result.due)
        earlier = slots.get(key)
        if earlier is None or _gives_way(earlier, result):
            slots[key] = result
    entered = {key: result for key, result in slots.items() if places.keep("poll_runs", result.due)}
    new = set()
    if entered:
        columns = zip(*map(_ledger_row, entered.values()), strict=True)
        new = set(connection.execute(_ENTER, [list(column) for column in columns]).fetchall())
    # a slot too old for the ledger is written too: its rows find by themselves whether they were there
    return [result for key, result in slots.items() if key in new or key not in entered]


def _gives_way(earlier: SlotResult, later: SlotResult) -> bool:
    """Whether a slot's later result replaces the earlier one; `_ENTER` asks the same of what is stored."""
    return (earlier.outcome in _NOT_READ and later.outcome not in _NOT_READ) or (
        not earlier.samples and later.samples > 0
    )


_ENTER = """
INSERT INTO poll_runs AS run
    (target_id, poll, due, started, finished, outcome, samples, milliseconds, worker, detail, manual)
SELECT * FROM unnest(%b::int[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::text[],
                     %b::int[], %b::float8[], %b::text[], %b::text[], %b::bool[])
ON CONFLICT (target_id, poll, due) DO UPDATE
SET started = excluded.started, finished = excluded.finished, outcome = excluded.outcome, samples = excluded.samples,
    milliseconds = excluded.milliseconds, worker = excluded.worker, detail = excluded.detail, manual = excluded.manual
WHERE (run.outcome IN ('lost', 'expired', 'skipped', 'error')
       AND excluded.outcome NOT IN ('lost', 'expired', 'skipped', 'error'))
   OR (run.samples = 0 AND excluded.samples > 0)
RETURNING target_id, poll, due
"""

_FIND_LAYOUTS = """
SELECT target_id, poll, digest, id
FROM layouts JOIN unnest(%b::int[], %b::text[], %b::bytea[]) AS wanted (target_id, poll, digest)
    USING (target_id, poll, digest)
"""

_ADD_LAYOUT = """
INSERT INTO layouts (target_id, poll, digest, series_ids) VALUES (%s, %s, %s, %b::int[]) ON CONFLICT DO NOTHING
"""

_FIND_SERIES = """
SELECT target_id, digest, id FROM series JOIN unnest(%b::int[], %b::bytea[]) AS wanted (target_id, digest)
    USING (target_id, digest)
"""

_ADD_SERIES = """
INSERT INTO series (target_id, digest, metric, labels)
SELECT * FROM unnest(%b::int[], %b::bytea[], %b::text[], %b::jsonb[]) ON CONFLICT DO NOTHING
"""

# A block that comes after the end of its window may come after the window was rolled up. The row is locked even if
# it was there, or a roll-up could take it away without seeing the block.
_MARK_LATE = """
INSERT INTO rollup_late (rollup, layout_id, ts)
SELECT DISTINCT 'rollups_5m', layout_id, date_bin('5 minutes', ts, '2000-01-01Z')
FROM unnest(%b::int[], %b::timestamptz[]) AS block (layout_id, ts)
WHERE date_bin('5 minutes', ts, '2000-01-01Z') + interval '5 minutes' <= now()
ORDER BY 2, 3
ON CONFLICT (rollup, layout_id, ts) DO UPDATE SET ts = excluded.ts
"""


def _ledger_row(result: SlotResult) -> tuple[object, ...]:
    return (
        result.target_id,
        result.poll,
        result.due,
        result.started,
        result.finished,
        str(result.outcome),
        result.samples,
        result.milliseconds,
        result.worker,
        result.detail.replace("\x00", "\N{REPLACEMENT CHARACTER}"),
        result.manual,
    )


def _layout_ids(connection: psycopg.Connection[Any], keys: Sequence[LayoutKey]) -> dict[LayoutKey, int]:
    columns = [list(column) for column in zip(*keys, strict=True)]
    return {LayoutKey(*key): found for *key, found in connection.execute(_FIND_LAYOUTS, columns)}


def _series_ids(
    connection: psycopg.Connection[Any], members: dict[LayoutKey, tuple[Series, ...]]
) -> dict[tuple[int, Series], int]:
    wanted = {
        (key.target_id, blake2b(msgspec.msgpack.encode(one), digest_size=16).digest()): one
        for key, held in members.items()
        for one in held
    }
    found = _find_series(connection, list(wanted))
    new = sorted(wanted.keys() - found.keys())
    if new:
        connection.execute(
            _ADD_SERIES,
            [
                [target_id for target_id, _ in new],
                [digest for _, digest in new],
                [wanted[key].metric for key in new],
                [inventory.as_json(dict(wanted[key].labels)) for key in new],
            ],
        )
        found.update(_find_series(connection, new))
    return {(target_id, wanted[target_id, digest]): found[target_id, digest] for target_id, digest in wanted}


def _find_series(
    connection: psycopg.Connection[Any], keys: Sequence[tuple[int, bytes]]
) -> dict[tuple[int, bytes], int]:
    columns = [list(column) for column in zip(*keys, strict=True)]
    return {(target_id, digest): found for target_id, digest, found in connection.execute(_FIND_SERIES, columns)}


def _mark_late(connection: psycopg.Connection[Any], rows: Sequence[blocks.Row]) -> None:
    if rows:
        connection.execute(_MARK_LATE, [[row.layout_id for row in rows], [row.ts for row in rows]])


def _count(
    results: Sequence[SlotResult], fresh: Sequence[SlotResult], rows: Sequence[blocks.Row], repeated: int
) -> None:
    repeated_slots.inc(len(results) - len(fresh))
    repeated_blocks.inc(repeated)
    written_samples.inc(sum(len(row.values) for row in rows) // 8)
    for outcome, number in Tally(result.outcome for result in fresh).items():
        written_slots.labels(outcome.value).inc(number)
