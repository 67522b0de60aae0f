"""Jobs in full: schedules, lanes, plans, undo, and an audit that can only grow"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_MOMENT = postgresql.TIMESTAMP(timezone=True)
_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "due_at": _MOMENT,
    "retry_at": _MOMENT,
    "resend_at": _MOMENT,
    "lane": sa.TEXT(),
    "edge": sa.TEXT(),
    "every": sa.DOUBLE_PRECISION(),
    "undo_after": sa.DOUBLE_PRECISION(),
    "repeats": sa.UUID(),
    "undoes": sa.UUID(),
    "undone_by": sa.UUID(),
    "plan": sa.UUID(),
    "step": sa.INTEGER(),
    "follows": sa.UUID(),
}


def upgrade() -> None:
    op.alter_column("jobs", "deadline", new_column_name="expires_at")
    for name, kind in _COLUMNS.items():
        op.add_column("jobs", sa.Column(name, kind, nullable=True))
    op.execute("UPDATE jobs SET due_at = created_at")
    # two runs at once, from before this version, would be in the way of the key below; the sweep starts them again
    op.execute("UPDATE jobs SET state = 'queued', leased_until = NULL, attempts = 1 WHERE state = 'running'")
    op.alter_column("jobs", "due_at", server_default=sa.text("now()"))
    op.create_index(
        "jobs_open_idx",
        "jobs",
        ["service", "target", "due_at", "id"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "jobs_running_key",
        "jobs",
        ["service", "target", sa.text("COALESCE(lane, '')")],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(op.f("jobs_plan_idx"), "jobs", ["plan"], postgresql_where=sa.text("plan IS NOT NULL"))
    op.create_table(
        "job_events",
        sa.Column("id", sa.BIGINT(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("ts", _MOMENT, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("event", sa.TEXT(), nullable=False),
        sa.Column("who", sa.TEXT(), nullable=False),
        sa.Column("why", sa.TEXT(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("job_events_pkey")),
    )
    op.create_index(op.f("job_events_job_id_id_idx"), "job_events", ["job_id", "id"])
    op.execute(
        """
        CREATE FUNCTION job_events_stay() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'job_events is an audit: its rows are neither changed nor deleted'
                USING ERRCODE = 'insufficient_privilege';
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER job_events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON job_events "
        "FOR EACH STATEMENT EXECUTE FUNCTION job_events_stay()"
    )
