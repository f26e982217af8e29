"""Wrong passwords in a row are counted for the person, wherever they come from."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("users", sa.Column("wrong_passwords", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("users", "wrong_passwords")
