"""Verified addresses, names, deletion; mails, their links, recoveries and invitations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

VERIFIED = sa.text("email_verified_at IS NOT NULL")


def upgrade() -> None:
    for column in ("email_key", "name"):
        op.add_column("users", sa.Column(column, sa.Text))
    for column in ("email_verified_at", "changed_at", "deleted_at"):
        op.add_column("users", sa.Column(column, sa.BigInteger))
    op.execute("UPDATE users SET email_key = lower(email)")
    op.create_index("users_email", "users", ["email_key"])
    op.create_index(
        "users_verified_email",
        "users",
        ["email_key"],
        unique=True,
        sqlite_where=VERIFIED,
        postgresql_where=VERIFIED,
    )
    op.add_column("sessions", sa.Column("last_seen_at", sa.BigInteger))
    _create_mails()
    op.create_table(
        "recoveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("wanted", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "invitations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("email", sa.Text),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        sa.Column("used_by", sa.Text),
        sa.Column("revoked_at", sa.BigInteger),
    )


def _create_mails() -> None:
    op.create_table(
        "mails",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id")),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger, nullable=False),
    )
    op.create_index("mails_next_attempt", "mails", ["next_attempt_at"])
    op.create_index("mails_user", "mails", ["user_id"])
    op.create_table(
        "mail_links",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("email_key", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_index("mail_links_user", "mail_links", ["user_id"])
    op.create_index("mail_links_email", "mail_links", ["email_key"])
    op.create_index("mail_links_expires", "mail_links", ["expires_at"])


def downgrade() -> None:
    for table in ("invitations", "recoveries", "mail_links", "mails"):
        op.drop_table(table)
    op.drop_column("sessions", "last_seen_at")
    op.drop_index("users_verified_email", "users")
    op.drop_index("users_email", "users")
    for column in ("email_key", "name", "email_verified_at", "changed_at", "deleted_at"):
        op.drop_column("users", column)
