"""What clients register, keys that rotate, pushed requests, proofs of possession, and logouts to be delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NOTHING = sa.text("'{}'")


def upgrade() -> None:
    for column in (
        sa.Column("auth_method", sa.Text),
        sa.Column("jwks", sa.Text),
        sa.Column("jwks_uri", sa.Text),
        sa.Column("id_token_algorithm", sa.Text, nullable=False, server_default="ES256"),
        sa.Column("dpop_bound", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("pushed_only", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("logout_uri", sa.Text),
        sa.Column("details", sa.Text, nullable=False, server_default=NOTHING),
        sa.Column("origin", sa.Text, nullable=False, server_default="administrator"),
        sa.Column("registration_digest", sa.LargeBinary),
        sa.Column("fetched_at", sa.BigInteger),
        sa.Column("tokens_valid_after", sa.BigInteger, nullable=False, server_default="0"),
    ):
        op.add_column("clients", column)
    op.add_column("families", sa.Column("started_in", sa.Text))
    op.add_column("families", sa.Column("key_thumbprint", sa.Text))
    op.create_index("families_client", "families", ["client_id"])
    op.create_index("families_started_in", "families", ["started_in"])
    op.add_column("codes", sa.Column("key_thumbprint", sa.Text))
    op.add_column("refresh_tokens", sa.Column("salt", sa.LargeBinary))
    for column in (
        sa.Column("algorithm", sa.Text, nullable=False, server_default="ES256"),
        sa.Column("sealed_key", sa.LargeBinary),
        sa.Column("active_from", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("revoked_at", sa.BigInteger),
    ):
        op.add_column("signing_keys", column)
    op.create_table(
        "pushed_requests",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("client_id", sa.Text, sa.ForeignKey("clients.id"), nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("begun_at", sa.BigInteger),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_index("pushed_requests_expires", "pushed_requests", ["expires_at"])
    op.create_table(
        "proofs",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("proofs_expires", "proofs", ["expires_at"])
    op.create_table(
        "registration_tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("uses_left", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "logout_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("client_id", sa.Text, sa.ForeignKey("clients.id"), nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("logout_deliveries_next", "logout_deliveries", ["next_at"])


def downgrade() -> None:
    for table in ("logout_deliveries", "registration_tokens", "proofs", "pushed_requests"):
        op.drop_table(table)
    for index in ("families_client", "families_started_in"):
        op.drop_index(index, "families")
    for table, columns in {
        "signing_keys": ("algorithm", "sealed_key", "active_from", "revoked_at"),
        "refresh_tokens": ("salt",),
        "codes": ("key_thumbprint",),
        "families": ("started_in", "key_thumbprint"),
        "clients": (
            *("auth_method", "jwks", "jwks_uri", "id_token_algorithm", "dpop_bound", "pushed_only", "logout_uri"),
            *("details", "origin", "registration_digest", "fetched_at", "tokens_valid_after"),
        ),
    }.items():
        for column in columns:
            op.drop_column(table, column)
