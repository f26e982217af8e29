"""Second factors, passkeys, sign-ins in steps, and other providers that people may sign in with."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("users", sa.Column("wrong_codes", sa.Integer, nullable=False, server_default="0"))
    methods = sa.Column("methods", sa.Text, nullable=False, server_default='["pwd"]')
    op.add_column("sessions", methods)
    op.add_column("families", sa.Column("methods", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "sign_ins",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("methods", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("wanted", sa.Text),
        sa.Column("way_on", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("sign_ins_user", "sign_ins", ["user_id"])
    op.create_index("sign_ins_expires", "sign_ins", ["expires_at"])
    op.create_table(
        "authenticator_apps",
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("confirmed_at", sa.BigInteger),
        sa.Column("last_step", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_table(
        "passkeys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("credential_id", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_count", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("synced", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_index("passkeys_user", "passkeys", ["user_id"])
    op.create_table(
        "used_challenges",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("used_challenges_expires", "used_challenges", ["expires_at"])
    op.create_table(
        "upstreams",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False, unique=True),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("makes_accounts", sa.Boolean, nullable=False),
        sa.Column("domains", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "upstream_links",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("linked_at", sa.BigInteger, nullable=False),
    )
    op.create_index("upstream_links_user", "upstream_links", ["user_id"])
    op.create_table(
        "upstream_sign_ins",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("browser", sa.LargeBinary, nullable=False),
        sa.Column("upstream_id", sa.Text, sa.ForeignKey("upstreams.id"), nullable=False),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id")),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("way_on", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("upstream_sign_ins_expires", "upstream_sign_ins", ["expires_at"])


def downgrade() -> None:
    for table in (
        "upstream_sign_ins",
        "upstream_links",
        "upstreams",
        "used_challenges",
        "passkeys",
        "recovery_codes",
        "authenticator_apps",
        "sign_ins",
    ):
        op.drop_table(table)
    op.drop_column("families", "methods")
    op.drop_column("sessions", "methods")
    op.drop_column("users", "wrong_codes")
