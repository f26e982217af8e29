"""Schedules, and the runs they have started."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("input", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("tags", sa.Text),
        sa.Column("timing", sa.Text, nullable=False),
        sa.Column("overlap", sa.Text, nullable=False),
        sa.Column("catch_up", sa.Text, nullable=False),
        sa.Column("catch_up_micros", sa.BigInteger, nullable=False),
        sa.Column("jitter_micros", sa.BigInteger, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("declared", sa.Boolean, nullable=False),
        sa.Column("principal", sa.Text),
        sa.Column("principal_name", sa.Text),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("next_at", sa.BigInteger),
        sa.Column("fire_at", sa.BigInteger),
        sa.Column("waiting_at", sa.BigInteger),
        sa.Column("fired", sa.BigInteger, nullable=False),
        sa.Column("skipped", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_index("schedules_fire", "schedules", ["fire_at"])
    waiting = sa.text("waiting_at IS NOT NULL")
    op.create_index("schedules_waiting", "schedules", ["name"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "schedule_runs",
        sa.Column("schedule", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
    )
    op.create_index("schedule_runs_run", "schedule_runs", ["run"])


def downgrade() -> None:
    op.drop_table("schedule_runs")
    for name in ("schedules_fire", "schedules_waiting"):
        op.drop_index(name, "schedules")
    op.drop_table("schedules")
