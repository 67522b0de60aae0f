"""Roll-ups: 5 minutes from the samples, 1 hour from those, kept when the samples are long gone.

A window is rolled up once it is over; the writer notes every block that comes later than that in `rollup_late`, and
its window is rolled up again. Whatever is done twice comes out the same.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import Connection, Engine, text

from nms_workers.store import partitions

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=60)  # a window's last blocks are still on their way when it ends
WINDOWS_AT_ONCE = 300  # a run after a long pause goes on in the next run
LATE_AT_ONCE = 5_000


@dataclass(frozen=True)
class _Rollup:
    """One table of roll-ups and where it comes from."""

    table: str
    width: timedelta
    source: str
    members: str  # the source's arrays, member by member
    measures: str  # the aggregates of one member


# The mean leaves out what is beyond 1e150: PostgreSQL's avg() squares its input and fails on it.
_FROM_SAMPLES = """
min(value) FILTER (WHERE value <> 'NaN') AS low,
max(value) FILTER (WHERE value <> 'NaN') AS high,
avg(value) FILTER (WHERE value > -1e150 AND value < 1e150) AS middle,
(array_agg(value ORDER BY ts DESC) FILTER (WHERE value <> 'NaN'))[1] AS newest,
count(*) FILTER (WHERE value <> 'NaN') AS number
"""
_FROM_ROLLUPS = """
min(low) FILTER (WHERE number > 0) AS low,
max(high) FILTER (WHERE number > 0) AS high,
sum(middle * number) FILTER (WHERE middle <> 'NaN') / sum(number) FILTER (WHERE middle <> 'NaN') AS middle,
(array_agg(newest ORDER BY ts DESC) FILTER (WHERE number > 0))[1] AS newest,
sum(number) AS number
"""
_ROLLUPS = (
    _Rollup(
        "rollups_5m",
        timedelta(minutes=5),
        "sample_blocks",
        'unnest(block."values") WITH ORDINALITY AS member (value, position)',
        _FROM_SAMPLES,
    ),
    _Rollup(
        "rollups_1h",
        timedelta(hours=1),
        "rollups_5m",
        "unnest(block.min, block.max, block.mean, block.last, block.count) WITH ORDINALITY "
        "AS member (low, high, middle, newest, number, position)",
        _FROM_ROLLUPS,
    ),
)

_ROLL = """
INSERT INTO {table} (layout_id, ts, min, max, mean, last, count)
SELECT layout_id, begins,
    array_agg(coalesce(low, 'NaN') ORDER BY position), array_agg(coalesce(high, 'NaN') ORDER BY position),
    array_agg(coalesce(middle, 'NaN') ORDER BY position), array_agg(coalesce(newest, 'NaN') ORDER BY position),
    array_agg(number ORDER BY position)
FROM (
    SELECT wanted.layout_id, wanted.begins, position, {measures}
    FROM {wanted}
    CROSS JOIN LATERAL (
        SELECT * FROM {source}
        WHERE layout_id = wanted.layout_id AND ts >= wanted.begins AND ts < wanted.begins + CAST(:width AS interval)
    ) AS block
    CROSS JOIN LATERAL {members}
    GROUP BY wanted.layout_id, wanted.begins, position
) AS measured
GROUP BY layout_id, begins
ON CONFLICT (layout_id, ts) DO UPDATE
SET min = excluded.min, max = excluded.max, mean = excluded.mean, last = excluded.last, count = excluded.count
"""
_EVERY_LAYOUT = "(SELECT id AS layout_id, CAST(:begins AS timestamptz) AS begins FROM layouts) AS wanted"
_THESE = "unnest(CAST(:layouts AS int[]), CAST(:windows AS timestamptz[])) AS wanted (layout_id, begins)"

_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('nms-workers roll-ups ' || current_schema()))")
_DONE_UNTIL = text("SELECT done_until FROM rollup_progress WHERE rollup = :rollup")
_SET_DONE = text(
    "INSERT INTO rollup_progress (rollup, done_until) VALUES (:rollup, :until) "
    "ON CONFLICT (rollup) DO UPDATE SET done_until = excluded.done_until"
)
_TAKE_LATE = text(
    """
    DELETE FROM rollup_late AS late
    USING (
        SELECT rollup, layout_id, ts FROM rollup_late WHERE rollup = :rollup AND ts < :until ORDER BY ts LIMIT :limit
    ) AS oldest
    WHERE (late.rollup, late.layout_id, late.ts) = (oldest.rollup, oldest.layout_id, oldest.ts)
    RETURNING late.layout_id, late.ts
    """
)
_SKIP_LATE = text("DELETE FROM rollup_late WHERE rollup = :rollup AND ts = :begins")
_PASS_ON = text(
    "INSERT INTO rollup_late (rollup, layout_id, ts) "
    "SELECT DISTINCT :rollup, layout_id, date_bin(CAST(:width AS interval), ts, '2000-01-01Z') "
    "FROM unnest(CAST(:layouts AS int[]), CAST(:windows AS timestamptz[])) AS late (layout_id, ts) "
    "ON CONFLICT DO NOTHING"
)


@dataclass
class RolledUp:
    """How many windows (of all layouts) were rolled up, and how many (of one layout each) again."""

    windows: int = 0
    again: int = 0


def roll_up(engine: Engine, now: datetime | None = None) -> RolledUp:
    """Bring the roll-ups up to now. Idempotent; of two at once, one leaves it to the other.

    Work is committed window by window. After a long pause one run does not do it all: call again.

    Args:
        now: never later than the server's clock, by which the writer tells what is late.
    """
    with engine.connect() as connection:
        clock: datetime = connection.execute(text("SELECT now()")).scalar_one()
    now = min(now or clock, clock)
    done = RolledUp()
    for finer, rollup in zip((None, *_ROLLUPS), _ROLLUPS, strict=False):
        with engine.connect() as connection:
            until = _over(connection, rollup, finer, now)
        if until is None:
            continue
        for _ in islice(_windows(engine, rollup, until), WINDOWS_AT_ONCE):
            done.windows += 1
        done.again += _late(engine, rollup)
    return done


def _over(connection: Connection, rollup: _Rollup, finer: _Rollup | None, now: datetime) -> datetime | None:
    """The end of the newest window that can be rolled up; None when there is none."""
    if finer is None:
        return _floor(now - GRACE, rollup.width)
    until = connection.execute(_DONE_UNTIL, {"rollup": finer.table}).scalar()
    return None if until is None else _floor(until, rollup.width)


def _windows(engine: Engine, rollup: _Rollup, until: datetime) -> Iterator[datetime]:
    """Roll up the windows that are over, one transaction each; yields the beginning of each."""
    statement = text(_statement(rollup, _EVERY_LAYOUT))
    while True:
        with engine.begin() as connection:
            if not connection.execute(_LOCK).scalar_one():
                return
            begins = connection.execute(_DONE_UNTIL, {"rollup": rollup.table}).scalar() or _oldest(connection, rollup)
            if begins is None or begins >= until:
                return
            partitions.ensure(connection, [(rollup.table, begins)])
            # first the notes, then the blocks: what is noted after this is not seen by the next statement
            connection.execute(_SKIP_LATE, {"rollup": rollup.table, "begins": begins})
            connection.execute(statement, {"begins": begins, "width": rollup.width})
            connection.execute(_SET_DONE, {"rollup": rollup.table, "until": begins + rollup.width})
        yield begins


def _late(engine: Engine, rollup: _Rollup) -> int:
    """Roll up again the windows into which something came late. Returns how many."""
    statement = text(_statement(rollup, _THESE))
    with engine.begin() as connection:
        if not connection.execute(_LOCK).scalar_one():
            return 0
        until = connection.execute(_DONE_UNTIL, {"rollup": rollup.table}).scalar()
        taken = connection.execute(_TAKE_LATE, {"rollup": rollup.table, "until": until, "limit": LATE_AT_ONCE}).all()
        if not taken:
            return 0
        windows = {"layouts": [layout for layout, _ in taken], "windows": [begins for _, begins in taken]}
        partitions.ensure(connection, [(rollup.table, begins) for begins in set(windows["windows"])])
        connection.execute(statement, windows | {"width": rollup.width})
        for coarser in _ROLLUPS:
            if coarser.source == rollup.table:
                connection.execute(_PASS_ON, windows | {"rollup": coarser.table, "width": coarser.width})
    return len(taken)


def _statement(rollup: _Rollup, wanted: str) -> str:
    return _ROLL.format(
        table=rollup.table, source=rollup.source, members=rollup.members, measures=rollup.measures, wanted=wanted
    )


def _oldest(connection: Connection, rollup: _Rollup) -> datetime | None:
    oldest = connection.execute(text(f"SELECT min(ts) FROM {rollup.source}")).scalar()  # noqa: S608 - a name of our own
    return None if oldest is None else _floor(oldest, rollup.width)


def _floor(moment: datetime, width: timedelta) -> datetime:
    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // width * width
