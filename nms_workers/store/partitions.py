"""Partitions by time: made ahead, made on demand for late data, dropped when their retention is over.

Nothing here takes a lock that stops readers or writers: a partition is built aside and attached, and detached
concurrently before it is dropped (https://www.postgresql.org/docs/current/ddl-partitioning.html).
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from psycopg.errors import QueryCanceled
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from nms_workers.store.engine import require_session

log = logging.getLogger(__name__)

Width = Literal["hour", "day", "month"]
Retention = Mapping[str, timedelta]

_STAMP: dict[Width, str] = {"hour": "%Y%m%d%H", "day": "%Y%m%d", "month": "%Y%m"}
LOCK_SECONDS = 5  # how long one partition may be waited for

_DOOMED = "nms-workers: its retention is over, to be dropped"
_LOCK = text("SELECT pg_try_advisory_lock(hashtext('nms-workers partitions ' || current_schema()))")
_UNLOCK = text("SELECT pg_advisory_unlock(hashtext('nms-workers partitions ' || current_schema()))")
_XACT_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('nms-workers partition ' || current_schema()))")


@dataclass(frozen=True)
class Partitioned:
    """How one table is cut: by `column`, `ahead` partitions beyond the current one, each kept for `keep`."""

    column: str
    width: Width
    ahead: int
    keep: timedelta


TABLES: dict[str, Partitioned] = {
    "sample_blocks": Partitioned("ts", "day", 2, timedelta(days=30)),
    "rollups_5m": Partitioned("ts", "day", 2, timedelta(days=120)),
    "rollups_1h": Partitioned("ts", "month", 1, timedelta(days=1100)),
    "events": Partitioned("ts", "day", 2, timedelta(days=120)),
    "flow_blocks": Partitioned("received", "hour", 3, timedelta(hours=24)),
    "flow_rollup_blocks_1m": Partitioned("ts", "day", 2, timedelta(days=2)),
    "flow_rollup_blocks_5m": Partitioned("ts", "day", 2, timedelta(days=30)),
    "flow_rollup_blocks_1h": Partitioned("ts", "month", 1, timedelta(days=400)),
    "flow_batches": Partitioned("at", "day", 2, timedelta(days=8)),
    "poll_runs": Partitioned("due", "hour", 3, timedelta(hours=24)),
}


@dataclass
class Maintained:
    """What one run of `maintain` did: names of partitions."""

    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def bounds(width: Width, moment: datetime) -> tuple[datetime, datetime]:
    """Beginning (inclusive) and end (exclusive) of the partition that holds `moment`, in UTC."""
    start = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if width == "hour":
        return start, start + timedelta(hours=1)
    start = start.replace(hour=0)
    if width == "day":
        return start, start + timedelta(days=1)
    start = start.replace(day=1)
    return start, (start + timedelta(days=32)).replace(day=1)


def partition_name(table: str, moment: datetime) -> str:
    """The name of the partition of `table` that holds `moment`."""
    width = TABLES[table].width
    return f"{table}_p{bounds(width, moment)[0].strftime(_STAMP[width])}"


def kept(table: str, moment: datetime, now: datetime, retention: Retention | None = None) -> bool:
    """Whether a row of this moment has a place: its partition is not past retention, nor further ahead than is made.

    A row from the far future is a target's wrong clock; it would make partitions without end.
    """
    plan = TABLES[table]
    oldest = now - (retention or {}).get(table, plan.keep)
    newest = _ahead(plan, now)[-1]
    return bounds(plan.width, moment)[1] > oldest and moment < bounds(plan.width, newest)[1]


def ensure(connection: Connection, wanted: Iterable[tuple[str, datetime]]) -> list[str]:
    """Make the partitions of these (table, moment) that are missing, inside the caller's transaction.

    Returns:
        The names of those made.
    """
    names = {partition_name(table, moment): (table, moment) for table, moment in wanted}
    if not names:
        return []
    connection.execute(_XACT_LOCK)
    known = text("SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(name) IS NULL")
    missing = sorted(connection.execute(known, {"names": list(names)}).scalars())
    for name in missing:
        table, moment = names[name]
        start, end = bounds(TABLES[table].width, moment)
        connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
        connection.execute(
            text(
                f"ALTER TABLE {table} ATTACH PARTITION {name} "
                f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
            )
        )
    return missing


def maintain(engine: Engine, now: datetime | None = None, retention: Retention | None = None) -> Maintained | None:
    """Make the partitions of now and the near future, and drop those whose retention is over.

    Safe to run at any time and any number of times. A partition that a reader does not let go of within
    seconds stays until the next run.

    Args:
        retention: how long to keep a table, where it is not as in `TABLES`.

    Returns:
        What was done; None when another process is at it.

    Raises:
        ConfigError: PostgreSQL is reached through PgBouncer.
    """
    require_session(engine, "to maintain partitions")
    now = now or datetime.now(UTC)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # closed at the end, whatever happens, and with it go the lock and the time limit
        if not connection.execute(_LOCK).scalar_one():
            return None
        connection.execute(text(f"SET statement_timeout = '{LOCK_SECONDS}s'"))
        done = Maintained()
        with engine.begin() as making:
            wanted = [(table, moment) for table, plan in TABLES.items() for moment in _ahead(plan, now)]
            done.made = ensure(making, wanted)
        for table, plan in TABLES.items():
            _drop_before(connection, table, now - (retention or {}).get(table, plan.keep), done)
        connection.execute(_UNLOCK)
    if done.made or done.dropped:
        log.info("partitions made: %s; dropped: %s", ", ".join(done.made) or "-", ", ".join(done.dropped) or "-")
    return done


def _ahead(plan: Partitioned, now: datetime) -> list[datetime]:
    moments = [now]
    for _ in range(plan.ahead):
        moments.append(bounds(plan.width, moments[-1])[1])
    return moments


_PARTITIONS = text(
    """
    SELECT c.relname, i.inhparent IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS detaching
    FROM pg_class AS c
    LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
    WHERE c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relkind = 'r'
      AND c.relname ~ ('^' || :table || '_p[0-9]+$')
      AND (i.inhparent = to_regclass(:table)
           OR (i.inhparent IS NULL AND obj_description(c.oid, 'pg_class') = :doomed))
    ORDER BY detaching DESC, c.relname
    """
)


def _drop_before(connection: Connection, table: str, oldest: datetime, done: Maintained) -> None:
    width = TABLES[table].width
    for name, attached, detaching in connection.execute(_PARTITIONS, {"table": table, "doomed": _DOOMED}).all():
        stamp = re.sub(r".*_p", "", name)
        start = datetime.strptime(stamp, _STAMP[width]).replace(tzinfo=UTC)
        if bounds(width, start)[1] > oldest:
            continue
        try:
            _drop(connection, table, name, attached=attached, detaching=detaching)
        except OperationalError as exc:
            if not isinstance(exc.orig, QueryCanceled):
                raise
            log.warning("the partition %s is in use; it will be dropped by the next run", name)
            return  # the server detaches one at a time
        done.dropped.append(name)


def _drop(connection: Connection, table: str, name: str, *, attached: bool, detaching: bool) -> None:
    # a kill between these statements leaves a table that says what it is, and the next run goes on from there
    if attached and not detaching:
        connection.execute(text(f"COMMENT ON TABLE {name} IS '{_DOOMED}'"))
    if attached:
        how = "FINALIZE" if detaching else "CONCURRENTLY"
        connection.execute(text(f"ALTER TABLE {table} DETACH PARTITION {name} {how}"))
    connection.execute(text(f"DROP TABLE {name}"))
