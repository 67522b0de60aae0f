"""Follow-ups: which job made another one follow, and why; what a job that was put back had asked for"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("caused_by", sa.UUID(), nullable=True))
    op.add_column("jobs", sa.Column("evidence", postgresql.JSONB(), nullable=True))
    op.add_column("jobs", sa.Column("asked", postgresql.JSONB(), nullable=True))
    op.create_index(
        op.f("jobs_caused_by_idx"), "jobs", ["caused_by"], postgresql_where=sa.text("caused_by IS NOT NULL")
    )
