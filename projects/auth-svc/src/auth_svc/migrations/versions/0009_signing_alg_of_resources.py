"""Resource servers say what their access tokens are signed with."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("resources", sa.Column("signing_alg", sa.Text, nullable=False, server_default="ES256"))


def downgrade() -> None:
    op.drop_column("resources", "signing_alg")
