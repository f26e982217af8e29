"""Clients' rows say when they last got a token; whoever was there before this was known counts as used now."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("clients", sa.Column("granted_at", sa.BigInteger))
    clients = sa.table("clients", sa.column("granted_at", sa.BigInteger))
    op.execute(clients.update().values(granted_at=sa.literal_column(str(time.time_ns() // 1_000))))
    op.create_index("clients_origin", "clients", ["origin", "created_at"])
    op.create_index("consents_client", "consents", ["client_id"])


def downgrade() -> None:
    op.drop_index("consents_client", "consents")
    op.drop_index("clients_origin", "clients")
    op.drop_column("clients", "granted_at")
