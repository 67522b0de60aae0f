"""Health: how each target is, and what was done about it"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_MOMENT = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "health",
        sa.Column("target_id", sa.INTEGER(), nullable=False),
        sa.Column("state", sa.TEXT(), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("checked_at", _MOMENT, nullable=False),
        sa.Column("failures", sa.INTEGER(), nullable=False),
        sa.Column("successes", sa.INTEGER(), nullable=False),
        sa.Column("detail", sa.TEXT(), nullable=False),
        sa.Column("restarts", postgresql.ARRAY(_MOMENT), nullable=False),
        sa.Column("given_up", sa.BOOLEAN(), nullable=False),
        sa.Column("held", sa.TEXT(), nullable=False),
        sa.Column("job", sa.UUID(), nullable=True),
        sa.CheckConstraint("state IN ('unknown', 'healthy', 'unhealthy')", name=op.f("health_state_check")),
        sa.ForeignKeyConstraint(["target_id"], ["targets.id"], name=op.f("health_target_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("target_id", name=op.f("health_pkey")),
    )
