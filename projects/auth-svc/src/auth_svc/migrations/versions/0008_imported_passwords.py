"""Finds people whose password's hash was made elsewhere without looking at everybody."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

IMPORTED = "password_hash NOT LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'"


def upgrade() -> None:
    where = sa.text(IMPORTED)
    op.create_index("users_imported", "users", ["id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("users_imported", table_name="users")
