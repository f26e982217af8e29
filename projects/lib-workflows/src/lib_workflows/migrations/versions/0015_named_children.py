"""In which life of its parent a child was started: an id that the parent has chosen does not say."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("runs", sa.Column("parent_life", sa.Integer))


def downgrade() -> None:
    op.drop_column("runs", "parent_life")
