"""The upkeep of the roll-ups of flows: a minute's rows become one, five minutes come from minutes, hours from those.

The writer notes each window that it adds something to (`flow_rollup_due`), at every level. A window that is over and
noted is made anew from what is there, so what comes late needs no case of its own, and doing it twice changes nothing.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, text

from nms_workers.store import partitions
from nms_workers.store.flow_columns import FOR_LARGE_SETS, KEY_COLUMNS, KINDS, MEASURES

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=30)  # a window's last batches are still on their way when it ends
WINDOWS_AT_ONCE = 300  # a run after a long pause goes on in the next run
EXPORTERS_AT_ONCE = 50


@dataclass(frozen=True)
class _Level:
    """One level: its windows' width, and where they come from."""

    name: str
    width: timedelta
    source: str

    @property
    def table(self) -> str:
        return f"flow_rollup_blocks_{self.name}"


_LEVELS = (
    _Level("1m", timedelta(minutes=1), "1m"),
    _Level("5m", timedelta(minutes=5), "1m"),
    _Level("1h", timedelta(hours=1), "5m"),
)

_KEYS = ", ".join(column.name for column in KEY_COLUMNS)
_SUMS = ", ".join(f"least(sum({name}), 9223372036854775807)::bigint AS {name}" for name in MEASURES)
_UNFOLDED = ", ".join(f"unnest({name}) AS {name}" for name in (*(column.name for column in KEY_COLUMNS), *MEASURES))
_KEPT = ", ".join(f"CASE WHEN place <= :keep THEN {column.name} END AS {column.name}" for column in KEY_COLUMNS)
_FOLDED = ", ".join(
    [
        *(
            f"CASE WHEN kind IN ({', '.join(repr(kind) for kind, keys in KINDS.items() if column.name in keys)}) "
            f"THEN array_agg({column.name} ORDER BY place) END"
            for column in KEY_COLUMNS
        ),
        *(f"array_agg({name} ORDER BY place)" for name in MEASURES),
    ]
)

# `others`, whose keys are null, come behind all places and stay what they are.
_ROLL = f"""
WITH gone AS (
    DELETE FROM {{table}} WHERE ts = :begins AND exporter = ANY(CAST(:exporters AS inet[])) RETURNING *
),
member AS (SELECT exporter, kind, {_UNFOLDED} FROM {{source}}),
summed AS (SELECT exporter, kind, {_KEYS}, {_SUMS} FROM member GROUP BY exporter, kind, {_KEYS}),
placed AS (
    SELECT *, CASE WHEN num_nonnulls({_KEYS}) = 0 THEN :keep + 1 ELSE least(:keep + 1, row_number() OVER (
        PARTITION BY exporter, kind ORDER BY num_nonnulls({_KEYS}) = 0, octets_scaled DESC
    )) END AS place
    FROM summed
),
kept AS (SELECT exporter, kind, place, {_KEPT}, {", ".join(MEASURES)} FROM placed),
told AS (SELECT exporter, kind, place, {_KEYS}, {_SUMS} FROM kept GROUP BY exporter, kind, place, {_KEYS})
INSERT INTO {{table}} (ts, exporter, kind, {_KEYS}, {", ".join(MEASURES)})
SELECT CAST(:begins AS timestamptz), exporter, kind, {_FOLDED}
FROM told GROUP BY exporter, kind
"""  # noqa: S608 - names of our own
_FINER = """flow_rollup_blocks_{finer}
WHERE ts >= :begins AND ts < CAST(:begins AS timestamptz) + CAST(:width AS interval)
    AND exporter = ANY(CAST(:exporters AS inet[]))
"""

_DUE_WINDOWS = text(
    """
    SELECT DISTINCT due.ts FROM flow_rollup_due AS due
    WHERE level = :level AND ts <= :until AND NOT EXISTS (
        SELECT FROM flow_rollup_due AS finer
        WHERE :level <> '1m' AND finer.level = :source AND finer.exporter = due.exporter
            AND finer.ts >= due.ts AND finer.ts < due.ts + CAST(:width AS interval)
    )
    ORDER BY 1 LIMIT :limit
    """
)
_TAKE = text(
    """
    WITH taken AS MATERIALIZED (
        SELECT exporter FROM flow_rollup_due AS due
        WHERE level = :level AND ts = :begins AND NOT EXISTS (
            SELECT FROM flow_rollup_due AS finer
            WHERE :level <> '1m' AND finer.level = :source AND finer.exporter = due.exporter
                AND finer.ts >= due.ts AND finer.ts < due.ts + CAST(:width AS interval)
        )
        ORDER BY exporter LIMIT :limit FOR UPDATE
    )
    DELETE FROM flow_rollup_due AS due USING taken
    WHERE level = :level AND ts = :begins AND due.exporter = taken.exporter
    RETURNING due.exporter
    """
)
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('nms-workers flow roll-ups ' || current_schema()))")


def roll_up_flows(
    engine: Engine,
    now: datetime | None = None,
    *,
    keep: int = 10_000,
    retention: partitions.Retention | None = None,
) -> int:
    """Bring the roll-ups of flows up to now. Idempotent; of two at once, one leaves it to the other.

    Work is committed window by window. After a long pause one run does not do it all: call again.

    Args:
        keep: how many keys of a kind are kept, of one exporter and window; the others are summed in one.
        retention: how long a table's rows are kept, where it is not as in `partitions.TABLES`.

    Returns:
        How many windows were rolled up.
    """
    now = now or datetime.now(UTC)
    done = 0
    for level in _LEVELS:
        asked = {"level": level.name, "source": level.source, "width": level.width, "until": now - GRACE - level.width}
        with engine.connect() as connection:
            windows = connection.execute(_DUE_WINDOWS, asked | {"limit": WINDOWS_AT_ONCE}).scalars().all()
        for begins in windows:
            # from the source that is not there any more nothing could be made but a hole
            there = partitions.kept(f"flow_rollup_blocks_{level.source}", begins, now, retention)
            while _window(engine, level, begins, keep, there=there):
                done += 1
    return done


def _window(engine: Engine, level: _Level, begins: datetime, keep: int, *, there: bool) -> bool:
    """Roll one window up, of some exporters that are due; False when there are none."""
    asked = {"level": level.name, "source": level.source, "begins": begins, "width": level.width}
    with engine.begin() as connection:
        if not connection.execute(_LOCK).scalar_one():
            return False
        # first the notes, then the rows: what is noted after this is not seen by the next statement
        exporters = [str(one) for one in connection.execute(_TAKE, asked | {"limit": EXPORTERS_AT_ONCE}).scalars()]
        if exporters and there:
            partitions.ensure(connection, [(level.table, begins)])
            _roll(connection, level, asked | {"exporters": exporters, "keep": keep})
    return bool(exporters)


def _roll(connection: Connection, level: _Level, asked: dict[str, object]) -> None:
    connection.execute(text(FOR_LARGE_SETS))
    source = "gone" if level.name == level.source else _FINER.format(finer=level.source)
    connection.execute(text(_ROLL.format(table=level.table, source=source)), asked)
