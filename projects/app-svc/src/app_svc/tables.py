"""The tables of the built-in workflows (stock, payments, shipments, messages), of webhooks in and of delegations."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from lib_events.database import Schema

metadata = MetaData()
SCHEMA = Schema("app_svc", metadata, "app_svc.migrations")

stock = Table(
    "stock",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("price_cents", BigInteger, nullable=False),
    Column("available", BigInteger, CheckConstraint("available >= 0", name="stock_available"), nullable=False),
)

stock_reservations = Table(
    "stock_reservations",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("sku", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("status", Text, nullable=False),  # reserved or released
    Column("reserved_at", BigInteger, nullable=False),
    Column("released_at", BigInteger),
)

payments = Table(
    "payments",
    metadata,
    # One payment per key, however often it is asked for.
    Column("idempotency_key", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("card", Text, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    Column("status", Text, nullable=False),  # captured or refunded
    Column("captured_at", BigInteger, nullable=False),
    Column("refunded_at", BigInteger),
    Index("payments_order", "order_id"),
)

shipments = Table(
    "shipments",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("tracking_number", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("status", Text, nullable=False),  # shipped or recalled
    Column("shipped_at", BigInteger, nullable=False),
    Column("recalled_at", BigInteger),
)

outgoing_messages = Table(
    "outgoing_messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("recipient", Text, nullable=False),
    Column("email", Text),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("written_at", BigInteger, nullable=False),
)

incoming_webhooks = Table(
    "incoming_webhooks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("scheme", Text, nullable=False),  # standard-webhooks | hub-signature-256
    Column("event_type", Text, nullable=False),
    Column("id_pointer", Text),  # where in the body the delivery's id is; NULL: the scheme's own
    Column("subject_pointer", Text),
    Column("owner", Text, nullable=False),  # whose the events are
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

# By which id the AuthService knows what a run, or a schedule, may do for a person.
delegations = Table(
    "delegations",
    metadata,
    Column("kind", Text, primary_key=True),  # run | schedule
    Column("holder", Text, primary_key=True),  # the run's id, the schedule's name
    Column("delegation", Text, nullable=False),
    Column("principal", Text, nullable=False),  # for whom
    Column("expires_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),  # and the AuthService is to hear of it
    Column("withdrawn_at", BigInteger),  # when we heard that the AuthService gives nothing for it any more
)
