"""The DPoP proofs that were used, for all processes of a resource server."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "used_proofs",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("used_proofs_expires", "used_proofs", ["expires_at"])


def downgrade() -> None:
    op.drop_table("used_proofs")
