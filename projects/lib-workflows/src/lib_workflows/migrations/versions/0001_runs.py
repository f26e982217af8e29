"""Runs, their history and everything that reaches them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("input", sa.Text),
        sa.Column("output", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("principal", sa.Text),
        sa.Column("principal_name", sa.Text),
        sa.Column("tags", sa.Text),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("correlation_id", sa.Text, nullable=False),
        sa.Column("causation_id", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.Column("parent", sa.Text),
        sa.Column("parent_operation", sa.Text),
        sa.Column("forked_from", sa.Text),
        sa.Column("look_back_position", sa.BigInteger, nullable=False),
        sa.Column("wakes", sa.BigInteger, nullable=False),
        sa.Column("wake_at", sa.BigInteger),
        sa.Column("deadline_at", sa.BigInteger),
        sa.Column("waiting_for", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
    )
    _partial("runs_due", "runs", ["owner", "wake_at"], "wake_at IS NOT NULL")
    _partial("runs_owned", "runs", ["owner"], "ended_at IS NULL AND owner IS NOT NULL")
    _partial("runs_parent", "runs", ["parent"], "parent IS NOT NULL")
    _partial("runs_idempotency", "runs", ["principal", "idempotency_key"], "idempotency_key IS NOT NULL", unique=True)
    op.create_index("runs_created", "runs", ["created_at", "id"])
    op.create_index("runs_workflow", "runs", ["workflow", "created_at"])
    op.create_table(
        "history",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("input", sa.Text),
        sa.Column("output", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("meta", sa.Text),
        sa.Column("voided", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("run", "operation", "voided", name="history_operation"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "messages",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("payload", sa.Text),
        sa.Column("reference", sa.Text),
        sa.Column("sent_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "updates",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reply", sa.Text),
        sa.Column("principal", sa.Text),
        sa.Column("sent_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
    )
    op.create_index("updates_run", "updates", ["run"])
    op.create_table(
        "event_waits",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("operation", sa.Text, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("match", sa.Text, nullable=False),
        sa.Column("after_position", sa.BigInteger, nullable=False),
    )
    op.create_index("event_waits_match", "event_waits", ["type", "fields", "match"])
    op.create_table(
        "triggers",
        sa.Column("event_type", sa.Text, primary_key=True),
        sa.Column("workflow", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("takes_input", sa.Boolean, nullable=False),
        sa.Column("after_position", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "approvals",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("addressee", sa.Text, nullable=False),
        sa.Column("about", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("decided_at", sa.BigInteger),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_by_name", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("form", sa.Text),
    )
    op.create_index("approvals_asked", "approvals", ["asked_at", "id"])
    op.create_index("approvals_addressee", "approvals", ["addressee", "status"])
    op.create_index("approvals_run", "approvals", ["run"])
    op.create_table(
        "views",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "attempts",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("operation", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("lease_until_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("id", "epoch", name="workers_epoch"),
    )


def downgrade() -> None:
    for table in (
        "workers",
        "attempts",
        "views",
        "approvals",
        "triggers",
        "event_waits",
        "updates",
        "messages",
        "history",
        "runs",
    ):
        op.drop_table(table)
