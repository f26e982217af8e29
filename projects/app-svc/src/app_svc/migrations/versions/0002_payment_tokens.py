"""A payment knows the provider's token of the card, and nothing of its number."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE payments RENAME COLUMN card_last_four TO card")


def downgrade() -> None:
    op.execute("ALTER TABLE payments RENAME COLUMN card TO card_last_four")
