"""Queues with limits, the runs that count in them, and starts that are one run."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "queues",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("concurrency", sa.BigInteger),
        sa.Column("rate", sa.BigInteger),
        sa.Column("rate_micros", sa.BigInteger),
        sa.Column("key", sa.Text),
        sa.Column("per_key", sa.BigInteger),
        sa.Column("last_key", sa.Text),
        sa.Column("full_at", sa.BigInteger, nullable=False),
        sa.Column("declared", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.add_column("runs", sa.Column("slot", sa.Text))
    op.add_column("runs", sa.Column("queue_key", sa.Text))
    op.add_column("runs", sa.Column("debounce_key", sa.Text))
    op.add_column("runs", sa.Column("debounce_until", sa.BigInteger))
    op.add_column("triggers", sa.Column("queue_key", sa.Text))
    # What is queued is found by its queue, so that runs that wait for a slot are in nobody's way.
    op.drop_index("runs_due", "runs")
    _index("runs_due", ["owner", "wake_at"], "wake_at IS NOT NULL AND status <> 'queued'")
    _index("runs_later", ["wake_at"], "status = 'queued'")
    _index("runs_late", ["deadline_at"], "status = 'queued' AND deadline_at IS NOT NULL")
    first: tuple[str | sa.TextClause, ...] = (sa.text("priority DESC"), "wake_at")
    _index("runs_queued", ["queue", *first], "status = 'queued'")
    _index("runs_queued_by_key", ["queue", "queue_key", *first], "status = 'queued' AND queue_key IS NOT NULL")
    _index("runs_slot", ["slot"], "slot IS NOT NULL AND ended_at IS NULL")
    one: tuple[str | sa.TextClause, ...] = ("workflow", sa.text("(coalesce(principal, ''))"), "debounce_key")
    _index("runs_debounce", one, "status = 'queued' AND debounce_key IS NOT NULL", unique=True)


def downgrade() -> None:
    for name in ("debounce", "slot", "queued_by_key", "queued", "late", "later", "due"):
        op.drop_index(f"runs_{name}", "runs")
    _index("runs_due", ["owner", "wake_at"], "wake_at IS NOT NULL")
    op.drop_column("triggers", "queue_key")
    for name in ("debounce_until", "debounce_key", "queue_key"):
        op.drop_column("runs", name)
    op.drop_column("runs", "slot")
    op.drop_table("queues")


def _index(name: str, columns: Sequence[str | sa.TextClause], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, "runs", columns, unique=unique, sqlite_where=where, postgresql_where=where)
