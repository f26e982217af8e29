"""People who come from another provider wait until they have proven that the account with their address is theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "upstream_arrivals",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("upstream_id", sa.Text, sa.ForeignKey("upstreams.id"), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("issuer", "subject", "username", "email", "way_on")),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("upstream_arrivals_expires", "upstream_arrivals", ["expires_at"])


def downgrade() -> None:
    op.drop_table("upstream_arrivals")
