"""The tables of the history in PostgreSQL. Migrations bring a database here; a test holds the two equal.

Ids are 32-bit: samples name a layout, never a series, so ids are spent on what is new and not on what is read.
Partitioned tables carry no foreign keys: a check for every row of the hot path would buy nothing, the writer made
the ids itself.
"""

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import (
    ARRAY,
    BOOLEAN,
    BYTEA,
    DOUBLE_PRECISION,
    INET,
    INTEGER,
    JSONB,
    MACADDR,
    SMALLINT,
    TEXT,
    TIMESTAMP,
    UUID,
)
from sqlalchemy.types import BIGINT

from nms_workers.store.flow_columns import FLOW_COLUMNS, KEY_COLUMNS, LEVELS, MEASURES

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

JOB_STATES = ("queued", "running", "succeeded", "unchanged", "failed", "refused", "cancelled", "expired")
TARGET_STATES = ("proposed", "active", "paused", "gone")
HEALTH_STATES = ("unknown", "healthy", "unhealthy")

MOMENT = TIMESTAMP(timezone=True)
EMPTY_OBJECT = text("'{}'::jsonb")
NOW = text("now()")
_TYPES: dict[str, Any] = {
    "timestamptz": MOMENT, "inet": INET, "macaddr": MACADDR, "bigint": BIGINT, "integer": INTEGER, "smallint": SMALLINT,
}  # fmt: skip


def _one_of(column: str, allowed: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(one) for one in allowed)})"


def _target(*, primary_key: bool = False) -> Column[int]:
    return Column(
        "target_id", INTEGER, ForeignKey("targets.id", ondelete="CASCADE"), nullable=False, primary_key=primary_key
    )


targets = Table(
    "targets",
    metadata,
    Column("id", INTEGER, Identity(always=False), primary_key=True),
    Column("service", TEXT, nullable=False),
    Column("name", TEXT, nullable=False),
    Column("source", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),
    Column("settings", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("options", JSONB, nullable=False, server_default=EMPTY_OBJECT),  # the fleet's own: intervals, budgets
    Column("worker", TEXT),  # the host that must poll it; null: any
    Column("created_at", MOMENT, nullable=False, server_default=NOW),
    Column("updated_at", MOMENT, nullable=False, server_default=NOW),
    UniqueConstraint("service", "name"),
    CheckConstraint(_one_of("state", TARGET_STATES), name="state"),
)

schedules = Table(
    "schedules",
    metadata,
    _target(primary_key=True),
    Column("poll", TEXT, primary_key=True),
    Column("every_ms", INTEGER, nullable=False),
    Column("phase_ms", INTEGER, nullable=False),
    Column("audited_until", MOMENT),  # every slot due before is known to have ended
    CheckConstraint("every_ms > 0 AND phase_ms >= 0 AND phase_ms < every_ms", name="interval"),
)

series = Table(
    "series",
    metadata,
    Column("id", INTEGER, Identity(always=False), primary_key=True),
    _target(),
    Column("metric", TEXT, nullable=False),
    Column("labels", JSONB, nullable=False),
    # unique by digest, not by labels: labels may be longer than a btree entry
    Column("digest", BYTEA, nullable=False),
    UniqueConstraint("target_id", "digest"),
    Index(None, "metric", "target_id"),
)

layouts = Table(
    "layouts",
    metadata,
    Column("id", INTEGER, Identity(always=False), primary_key=True),
    _target(),
    Column("poll", TEXT, nullable=False),
    Column("digest", BYTEA, nullable=False),
    Column("series_ids", ARRAY(INTEGER), nullable=False),
    UniqueConstraint("target_id", "poll", "digest"),
    Index(None, "series_ids", postgresql_using="gin"),
)

sample_blocks = Table(
    "sample_blocks",
    metadata,
    Column("layout_id", INTEGER, nullable=False),
    Column("ts", MOMENT, nullable=False),
    Column("values", ARRAY(DOUBLE_PRECISION), nullable=False),
    PrimaryKeyConstraint("layout_id", "ts"),
    postgresql_partition_by="RANGE (ts)",
)


def _rollup(name: str) -> Table:
    """One row a layout and window; `ts` is the window's beginning, the arrays follow `layouts.series_ids`."""
    return Table(
        name,
        metadata,
        Column("layout_id", INTEGER, nullable=False),
        Column("ts", MOMENT, nullable=False),
        *(Column(kept, ARRAY(DOUBLE_PRECISION), nullable=False) for kept in ("min", "max", "mean", "last")),
        Column("count", ARRAY(INTEGER), nullable=False),
        PrimaryKeyConstraint("layout_id", "ts"),
        postgresql_partition_by="RANGE (ts)",
    )


rollups_5m = _rollup("rollups_5m")
rollups_1h = _rollup("rollups_1h")

rollup_progress = Table(
    "rollup_progress",
    metadata,
    Column("rollup", TEXT, primary_key=True),
    Column("done_until", MOMENT, nullable=False),
)

rollup_late = Table(  # windows to roll again, because data came in behind `done_until`
    "rollup_late",
    metadata,
    Column("rollup", TEXT, primary_key=True),
    Column("layout_id", INTEGER, primary_key=True),
    Column("ts", MOMENT, primary_key=True),
)

events = Table(
    "events",
    metadata,
    Column("target_id", INTEGER, nullable=False),
    Column("ts", MOMENT, nullable=False),
    Column("digest", BYTEA, nullable=False),  # of kind, fingerprint, state and message: writing twice is writing once
    Column("kind", TEXT, nullable=False),
    Column("severity", TEXT, nullable=False),
    Column("fingerprint", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),
    Column("message", TEXT, nullable=False),
    Column("attributes", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    PrimaryKeyConstraint("target_id", "ts", "digest"),
    Index(None, "ts"),
    postgresql_partition_by="RANGE (ts)",
)

firing = Table(  # what lasts now; its beginning and its end are events
    "firing",
    metadata,
    _target(primary_key=True),
    Column("digest", BYTEA, primary_key=True),  # of kind and fingerprint
    Column("poll", TEXT, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("fingerprint", TEXT, nullable=False),
    Column("severity", TEXT, nullable=False),
    Column("message", TEXT, nullable=False),
    Column("since", MOMENT, nullable=False),
    Column("last_seen", MOMENT, nullable=False),
)


def _lifetime() -> tuple[Column[object], ...]:
    return (
        Column("attributes", JSONB, nullable=False, server_default=EMPTY_OBJECT),
        Column("first_seen", MOMENT, nullable=False),
        Column("last_seen", MOMENT, nullable=False),
        Column("gone_at", MOMENT),
    )


entities = Table(
    "entities",
    metadata,
    Column("id", INTEGER, Identity(always=False), primary_key=True),
    _target(),
    Column("poll", TEXT, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("key", TEXT, nullable=False),
    Column("digest", BYTEA, nullable=False),  # of kind and key, which may be longer than a btree entry
    *_lifetime(),
    UniqueConstraint("target_id", "digest"),
    Index(None, "kind", "target_id"),
)

links = Table(
    "links",
    metadata,
    Column("id", INTEGER, Identity(always=False), primary_key=True),
    _target(),
    Column("poll", TEXT, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("a_kind", TEXT, nullable=False),
    Column("a_key", TEXT, nullable=False),
    Column("b_kind", TEXT, nullable=False),
    Column("b_key", TEXT, nullable=False),
    Column("digest", BYTEA, nullable=False),  # of kind, a and b
    *_lifetime(),
    UniqueConstraint("target_id", "digest"),
    Index(None, "kind", "target_id"),
)

flow_blocks = Table(  # flows of one exporter, received within one minute; the view `flows` gives one row each
    "flow_blocks",
    metadata,
    Column("received", MOMENT, nullable=False),  # when the first of them came
    Column("exporter", INET, nullable=False),
    Column("flows", INTEGER, nullable=False),
    *(Column(one.name, ARRAY(_TYPES[one.type])) for one in FLOW_COLUMNS),
    Index(None, "received", "exporter"),
    postgresql_partition_by="RANGE (received)",
)


def _flow_rollup(level: str) -> Table:
    """Several rows of an exporter, window and kind until the window is over, then one; the arrays go side by side."""
    return Table(
        f"flow_rollup_blocks_{level}",
        metadata,
        Column("ts", MOMENT, nullable=False),  # the window's beginning
        Column("exporter", INET, nullable=False),
        Column("kind", TEXT, nullable=False),
        *(Column(one.name, ARRAY(_TYPES[one.type])) for one in KEY_COLUMNS),
        *(Column(name, ARRAY(BIGINT), nullable=False) for name in MEASURES),
        Index(None, "kind", "ts", "exporter"),
        postgresql_partition_by="RANGE (ts)",
    )


flow_rollup_blocks = {level: _flow_rollup(level) for level in LEVELS}

flow_rollup_due = Table(  # windows that hold something new since they were rolled up
    "flow_rollup_due",
    metadata,
    Column("level", TEXT, primary_key=True),
    Column("ts", MOMENT, primary_key=True),
    Column("exporter", INET, primary_key=True),
)

flow_batches = Table(  # which batches are in, so that none is written twice
    "flow_batches",
    metadata,
    Column("at", MOMENT, nullable=False),
    Column("id", UUID, nullable=False),
    PrimaryKeyConstraint("at", "id"),
    postgresql_partition_by="RANGE (at)",
)

flow_exporters = Table(
    "flow_exporters",
    metadata,
    Column("address", INET, primary_key=True),
    Column("target_id", INTEGER, ForeignKey("targets.id", ondelete="SET NULL")),
    Column("versions", ARRAY(SMALLINT), nullable=False),
    Column("first_seen", MOMENT, nullable=False),
    Column("last_seen", MOMENT, nullable=False),
    Column("datagrams", BIGINT, nullable=False),
    Column("flows", BIGINT, nullable=False),
    Column("lost", BIGINT, nullable=False),
    Column("templates", INTEGER, nullable=False),
    Column("interfaces", JSONB, nullable=False, server_default=EMPTY_OBJECT),
)

poll_runs = Table(
    "poll_runs",
    metadata,
    Column("target_id", INTEGER, nullable=False),
    Column("poll", TEXT, nullable=False),
    Column("due", MOMENT, nullable=False),
    Column("started", MOMENT),
    Column("finished", MOMENT, nullable=False),
    Column("outcome", TEXT, nullable=False),
    Column("samples", INTEGER, nullable=False),
    Column("milliseconds", DOUBLE_PRECISION),
    Column("worker", TEXT, nullable=False),
    Column("detail", TEXT, nullable=False),
    Column("manual", BOOLEAN, nullable=False),
    PrimaryKeyConstraint("target_id", "poll", "due"),
    postgresql_partition_by="RANGE (due)",
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("service", TEXT, nullable=False),
    Column("action", TEXT, nullable=False),
    Column("target_id", INTEGER, ForeignKey("targets.id", ondelete="SET NULL")),
    Column("target", TEXT, nullable=False),
    Column("arguments", JSONB, nullable=False, server_default=EMPTY_OBJECT),
    Column("requested_by", TEXT, nullable=False),
    Column("reason", TEXT, nullable=False, server_default=text("''")),
    Column("idempotency_key", TEXT, unique=True),
    Column("state", TEXT, nullable=False),
    Column("attempts", INTEGER, nullable=False, server_default=text("0")),
    Column("created_at", MOMENT, nullable=False, server_default=NOW),
    Column("due_at", MOMENT, server_default=NOW),  # null: waits for the end of the job it follows
    Column("retry_at", MOMENT),  # an attempt failed: not again before
    Column("expires_at", MOMENT),  # not begun by then: not at all
    Column("published_at", MOMENT),  # when its message was last sent; null: none is under way
    Column("resend_at", MOMENT),  # nobody took it by then: it is sent again
    Column("claimed_at", MOMENT),
    Column("leased_until", MOMENT),  # a running job whose lease ran out has lost its worker
    Column("finished_at", MOMENT),
    Column("lane", TEXT),  # changes of one target and lane run one at a time; null: it crosses every lane of its target
    Column("edge", TEXT),  # the worker that must run it; null: any
    Column("every", DOUBLE_PRECISION),  # seconds
    Column("undo_after", DOUBLE_PRECISION),  # seconds
    Column("repeats", UUID),  # the first job of a recurring one
    Column("undoes", UUID),
    Column("undone_by", UUID),
    Column("plan", UUID),
    Column("step", INTEGER),
    Column("follows", UUID),
    Column("caused_by", UUID),  # the job that this one is a follow-up of
    Column("evidence", JSONB),  # why it asked for it
    Column("asked", JSONB),  # requests it sent before it was put back: what they change takes its time
    Column("worker", TEXT),
    Column("result", JSONB),
    Column("error", TEXT),
    Column("before", JSONB),
    Column("after", JSONB),
    CheckConstraint(_one_of("state", JOB_STATES), name="state"),
    Index(None, "state", "created_at"),
    Index(
        "jobs_open_idx", "service", "target", "due_at", "id", postgresql_where=text("state IN ('queued', 'running')")
    ),
    Index(
        "jobs_running_key",
        "service",
        "target",
        text("COALESCE(lane, '')"),
        unique=True,
        postgresql_where=text("state = 'running'"),
    ),
    Index(None, "plan", postgresql_where=text("plan IS NOT NULL")),
    Index(None, "caused_by", postgresql_where=text("caused_by IS NOT NULL")),
)

job_events = Table(  # triggers refuse to change or delete a row
    "job_events",
    metadata,
    Column("id", BIGINT, Identity(always=True), primary_key=True),
    Column("job_id", UUID, nullable=False),
    Column("ts", MOMENT, nullable=False, server_default=text("clock_timestamp()")),
    Column("event", TEXT, nullable=False),
    Column("who", TEXT, nullable=False),
    Column("why", TEXT, nullable=False),
    Index(None, "job_id", "id"),
)

health = Table(  # one row for each target that was looked at
    "health",
    metadata,
    _target(primary_key=True),
    Column("state", TEXT, nullable=False),
    Column("since", MOMENT, nullable=False),
    Column("checked_at", MOMENT, nullable=False),
    Column("failures", INTEGER, nullable=False),  # in a row
    Column("successes", INTEGER, nullable=False),
    Column("detail", TEXT, nullable=False),
    Column("restarts", ARRAY(MOMENT), nullable=False),  # asked for by the fleet, the newest last
    Column("given_up", BOOLEAN, nullable=False),
    Column("held", TEXT, nullable=False),  # why its container is not restarted now
    Column("job", UUID),  # the restart that is under way
    CheckConstraint(_one_of("state", HEALTH_STATES), name="state"),
)

# Reads the series first and only then the blocks of their layouts, so a filter by metric or target reads little.
SAMPLES_VIEW = """
CREATE VIEW samples AS
SELECT b.ts, t.service, t.name AS target, s.metric, s.labels, b.values[member.position] AS value
FROM layouts AS l
JOIN targets AS t ON t.id = l.target_id
CROSS JOIN LATERAL unnest(l.series_ids) WITH ORDINALITY AS member (series_id, position)
JOIN series AS s ON s.id = member.series_id
JOIN sample_blocks AS b ON b.layout_id = l.id
"""
