"""What runs log is kept with them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "run_logs",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("logger", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("operation", sa.Text),
        sa.Column("attempt", sa.Integer),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("run_logs")
