"""The first schema"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("ts", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("severity", sa.TEXT(), nullable=False),
        sa.Column("fingerprint", sa.TEXT(), nullable=False),
        sa.Column("state", sa.TEXT(), nullable=False),
        sa.Column("message", sa.TEXT(), nullable=False),
        sa.Column(
            "attributes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.PrimaryKeyConstraint("target_id", "ts", "digest", name=op.f("events_pkey")),
        postgresql_partition_by="RANGE (ts)",
    )
    op.create_index(op.f("events_ts_idx"), "events", ["ts"], unique=False)
    op.create_table(
        "flows",
        sa.Column("start", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("end", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("exporter", postgresql.INET(), nullable=False),
        sa.Column("src", postgresql.INET(), nullable=False),
        sa.Column("dst", postgresql.INET(), nullable=False),
        sa.Column("src_port", sa.INTEGER(), nullable=False),
        sa.Column("dst_port", sa.INTEGER(), nullable=False),
        sa.Column("protocol", sa.SMALLINT(), nullable=False),
        sa.Column("octets", sa.BIGINT(), nullable=False),
        sa.Column("packets", sa.BIGINT(), nullable=False),
        sa.Column(
            "attributes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        postgresql_partition_by="RANGE (start)",
    )
    op.create_index(op.f("flows_start_idx"), "flows", ["start"], unique=False, postgresql_using="brin")
    op.create_table(
        "poll_runs",
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("poll", sa.TEXT(), nullable=False),
        sa.Column("due", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("started", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("outcome", sa.TEXT(), nullable=False),
        sa.Column("samples", sa.INTEGER(), nullable=False),
        sa.Column("milliseconds", sa.DOUBLE_PRECISION(), nullable=True),
        sa.Column("worker", sa.TEXT(), nullable=False),
        sa.Column("detail", sa.TEXT(), nullable=False),
        sa.Column("manual", sa.BOOLEAN(), nullable=False),
        sa.PrimaryKeyConstraint("target_id", "poll", "due", name=op.f("poll_runs_pkey")),
        postgresql_partition_by="RANGE (due)",
    )
    op.create_table(
        "rollup_late",
        sa.Column("rollup", sa.TEXT(), nullable=False),
        sa.Column("layout_id", sa.INTEGER(), nullable=False),
        sa.Column("ts", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("rollup", "layout_id", "ts", name=op.f("rollup_late_pkey")),
    )
    op.create_table(
        "rollup_progress",
        sa.Column("rollup", sa.TEXT(), nullable=False),
        sa.Column("done_until", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("rollup", name=op.f("rollup_progress_pkey")),
    )
    op.create_table(
        "rollups_1h",
        sa.Column("layout_id", sa.INTEGER(), nullable=False),
        sa.Column("ts", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("min", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("max", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("mean", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("last", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("count", postgresql.ARRAY(sa.INTEGER()), nullable=False),
        sa.PrimaryKeyConstraint("layout_id", "ts", name=op.f("rollups_1h_pkey")),
        postgresql_partition_by="RANGE (ts)",
    )
    op.create_table(
        "rollups_5m",
        sa.Column("layout_id", sa.INTEGER(), nullable=False),
        sa.Column("ts", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("min", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("max", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("mean", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("last", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.Column("count", postgresql.ARRAY(sa.INTEGER()), nullable=False),
        sa.PrimaryKeyConstraint("layout_id", "ts", name=op.f("rollups_5m_pkey")),
        postgresql_partition_by="RANGE (ts)",
    )
    op.create_table(
        "sample_blocks",
        sa.Column("layout_id", sa.INTEGER(), nullable=False),
        sa.Column("ts", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("values", postgresql.ARRAY(sa.DOUBLE_PRECISION()), nullable=False),
        sa.PrimaryKeyConstraint("layout_id", "ts", name=op.f("sample_blocks_pkey")),
        postgresql_partition_by="RANGE (ts)",
    )
    op.create_table(
        "targets",
        sa.Column("id", sa.INTEGER(), sa.Identity(always=False), nullable=False),
        sa.Column("service", sa.TEXT(), nullable=False),
        sa.Column("name", sa.TEXT(), nullable=False),
        sa.Column("source", sa.TEXT(), nullable=False),
        sa.Column("state", sa.TEXT(), nullable=False),
        sa.Column(
            "settings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("worker", sa.TEXT(), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('proposed', 'active', 'paused', 'gone')", name=op.f("targets_state_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("targets_pkey")),
        sa.UniqueConstraint("service", "name", name=op.f("targets_service_name_key")),
    )
    op.create_table(
        "entities",
        sa.Column("id", sa.INTEGER(), sa.Identity(always=False), nullable=False),
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("poll", sa.TEXT(), nullable=False),
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("key", sa.TEXT(), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column(
            "attributes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("first_seen", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_seen", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("gone_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"], ["targets.id"], name=op.f("entities_target_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("entities_pkey")),
        sa.UniqueConstraint("target_id", "digest", name=op.f("entities_target_id_digest_key")),
    )
    op.create_index(op.f("entities_kind_target_id_idx"), "entities", ["kind", "target_id"], unique=False)
    op.create_table(
        "firing",
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column("poll", sa.TEXT(), nullable=False),
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("fingerprint", sa.TEXT(), nullable=False),
        sa.Column("severity", sa.TEXT(), nullable=False),
        sa.Column("message", sa.TEXT(), nullable=False),
        sa.Column("since", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_seen", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["target_id"], ["targets.id"], name=op.f("firing_target_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("target_id", "digest", name=op.f("firing_pkey")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("service", sa.TEXT(), nullable=False),
        sa.Column("action", sa.TEXT(), nullable=False),
        sa.Column("target_id", sa.INTEGER(), nullable=True),
        sa.Column("target", sa.TEXT(), nullable=False),
        sa.Column(
            "arguments", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("requested_by", sa.TEXT(), nullable=False),
        sa.Column("reason", sa.TEXT(), server_default=sa.text("''"), nullable=False),
        sa.Column("idempotency_key", sa.TEXT(), nullable=True),
        sa.Column("state", sa.TEXT(), nullable=False),
        sa.Column("attempts", sa.INTEGER(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("claimed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("leased_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("deadline", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("worker", sa.TEXT(), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.TEXT(), nullable=True),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'unchanged', 'failed', 'refused', 'cancelled', 'expired')",
            name=op.f("jobs_state_check"),
        ),
        sa.ForeignKeyConstraint(["target_id"], ["targets.id"], name=op.f("jobs_target_id_fkey"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        sa.UniqueConstraint("idempotency_key", name=op.f("jobs_idempotency_key_key")),
    )
    op.create_index(op.f("jobs_state_created_at_idx"), "jobs", ["state", "created_at"], unique=False)
    op.create_table(
        "layouts",
        sa.Column("id", sa.INTEGER(), sa.Identity(always=False), nullable=False),
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("poll", sa.TEXT(), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column("series_ids", postgresql.ARRAY(sa.INTEGER()), nullable=False),
        sa.ForeignKeyConstraint(["target_id"], ["targets.id"], name=op.f("layouts_target_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("layouts_pkey")),
        sa.UniqueConstraint("target_id", "poll", "digest", name=op.f("layouts_target_id_poll_digest_key")),
    )
    op.create_index(op.f("layouts_series_ids_idx"), "layouts", ["series_ids"], unique=False, postgresql_using="gin")
    op.create_table(
        "links",
        sa.Column("id", sa.INTEGER(), sa.Identity(always=False), nullable=False),
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("poll", sa.TEXT(), nullable=False),
        sa.Column("kind", sa.TEXT(), nullable=False),
        sa.Column("a_kind", sa.TEXT(), nullable=False),
        sa.Column("a_key", sa.TEXT(), nullable=False),
        sa.Column("b_kind", sa.TEXT(), nullable=False),
        sa.Column("b_key", sa.TEXT(), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column(
            "attributes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("first_seen", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_seen", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("gone_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["target_id"], ["targets.id"], name=op.f("links_target_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("links_pkey")),
        sa.UniqueConstraint("target_id", "digest", name=op.f("links_target_id_digest_key")),
    )
    op.create_index(op.f("links_kind_target_id_idx"), "links", ["kind", "target_id"], unique=False)
    op.create_table(
        "schedules",
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("poll", sa.TEXT(), nullable=False),
        sa.Column("every_ms", sa.INTEGER(), nullable=False),
        sa.Column("phase_ms", sa.INTEGER(), nullable=False),
        sa.Column("audited_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "every_ms > 0 AND phase_ms >= 0 AND phase_ms < every_ms", name=op.f("schedules_interval_check")
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["targets.id"], name=op.f("schedules_target_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("target_id", "poll", name=op.f("schedules_pkey")),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.INTEGER(), sa.Identity(always=False), nullable=False),
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("metric", sa.TEXT(), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.ForeignKeyConstraint(["target_id"], ["targets.id"], name=op.f("series_target_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("series_pkey")),
        sa.UniqueConstraint("target_id", "digest", name=op.f("series_target_id_digest_key")),
    )
    op.create_index(op.f("series_metric_target_id_idx"), "series", ["metric", "target_id"], unique=False)
    # Blocks longer than a quarter page are compressed where they stand: a detour through a side table costs more than
    # it saves. lz4 compresses as well as pglz here for a third of the work; not every server is built with it.
    op.execute('ALTER TABLE sample_blocks ALTER COLUMN "values" SET STORAGE MAIN')
    methods = op.get_bind().scalar(sa.text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'"))
    if "lz4" in (methods or ()):
        op.execute('ALTER TABLE sample_blocks ALTER COLUMN "values" SET COMPRESSION lz4')
        for table in ("rollups_5m", "rollups_1h"):
            for column in ("min", "max", "mean", "last", "count"):
                op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET COMPRESSION lz4")
    op.execute(
        """
        CREATE VIEW samples AS
        SELECT b.ts, t.service, t.name AS target, s.metric, s.labels, b.values[member.position] AS value
        FROM layouts AS l
        JOIN targets AS t ON t.id = l.target_id
        CROSS JOIN LATERAL unnest(l.series_ids) WITH ORDINALITY AS member (series_id, position)
        JOIN series AS s ON s.id = member.series_id
        JOIN sample_blocks AS b ON b.layout_id = l.id
        """
    )
