"""Stock with its first goods, reservations, the payment ledger, shipments and outgoing messages."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

GOODS = (
    ("mug-blue", "Mug, blue", 14_50, 500),
    ("mug-white", "Mug, white", 12_00, 500),
    ("tea-green", "Green tea, 100 g", 8_90, 1_000),
    ("kettle", "Kettle, 1.7 l", 79_00, 50),
    ("lamp", "Desk lamp", 129_00, 20),
)


def upgrade() -> None:
    stock = op.create_table(
        "stock",
        sa.Column("sku", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("price_cents", sa.BigInteger, nullable=False),
        sa.Column(
            "available", sa.BigInteger, sa.CheckConstraint("available >= 0", name="stock_available"), nullable=False
        ),
    )
    columns = ("sku", "name", "price_cents", "available")
    op.bulk_insert(stock, [dict(zip(columns, row, strict=True)) for row in GOODS])
    op.create_table(
        "stock_reservations",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("sku", sa.Text, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reserved_at", sa.BigInteger, nullable=False),
        sa.Column("released_at", sa.BigInteger),
    )
    op.create_table(
        "payments",
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("card_last_four", sa.Text, nullable=False),
        sa.Column("amount_cents", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("captured_at", sa.BigInteger, nullable=False),
        sa.Column("refunded_at", sa.BigInteger),
    )
    op.create_index("payments_order", "payments", ["order_id"])
    op.create_table(
        "shipments",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("tracking_number", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("shipped_at", sa.BigInteger, nullable=False),
        sa.Column("recalled_at", sa.BigInteger),
    )
    op.create_table(
        "outgoing_messages",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("email", sa.Text),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("written_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("outgoing_messages", "shipments", "payments", "stock_reservations", "stock"):
        op.drop_table(table)
