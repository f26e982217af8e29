"""What is alive of one person is found at once, however much of theirs is over: there is a bound to it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

LIVING = {
    "families_alive": ("families", ["user_id", "client_id", "created_at"], sa.text("revoked_at IS NULL")),
    "sessions_alive": ("sessions", ["user_id", "expires_at"], sa.text("ended_at IS NULL")),
}


def upgrade() -> None:
    for name, (table, columns, alive) in LIVING.items():
        op.create_index(name, table, columns, sqlite_where=alive, postgresql_where=alive)


def downgrade() -> None:
    for name, (table, _, _) in LIVING.items():
        op.drop_index(name, table)
