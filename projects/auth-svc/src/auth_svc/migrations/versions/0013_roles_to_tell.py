"""What the members of large groups may do now is told a few at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "roles_to_tell",
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("by", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("roles_to_tell")
