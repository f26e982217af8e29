"""What releases declare beside their workflows, in the order in which they came, and which of it a worker declares."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "declarations",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("in_force", sa.Boolean, nullable=False),
        sa.UniqueConstraint("subject", "digest", name="declarations_digest"),
        sqlite_autoincrement=True,
    )
    op.add_column("workers", sa.Column("declares", sa.Text))


def downgrade() -> None:
    op.drop_column("workers", "declares")
    op.drop_table("declarations")
