"""Which scopes were allowed while the person is away, too; of those from before, all where that was among them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("consents", sa.Column("away", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE consents SET away = scope WHERE ' ' || scope || ' ' LIKE '% offline_access %'")


def downgrade() -> None:
    op.drop_column("consents", "away")
