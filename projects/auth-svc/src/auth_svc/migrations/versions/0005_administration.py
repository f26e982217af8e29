"""The audit's chain; roles, groups and resource servers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"

NOTHING = "0" * 64  # the hash before the first line


def upgrade() -> None:
    chain_the_audit()
    op.create_table(
        "roles",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("includes", sa.Text, nullable=False),
        sa.Column("permissions", sa.Text, nullable=False),
        sa.Column("built_in", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Text, sa.ForeignKey("groups.id"), primary_key=True),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("added_at", sa.BigInteger, nullable=False),
    )
    op.create_index("group_members_user", "group_members", ["user_id"])
    op.create_table(
        "resources",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("identifier", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("permissions", sa.Text, nullable=False),
        sa.Column("access_token_seconds", sa.Integer),
        sa.Column("built_in", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )


def chain_the_audit() -> None:
    op.add_column("audit", sa.Column("position", sa.BigInteger))
    op.add_column("audit", sa.Column("hash", sa.Text))
    op.create_index("audit_position", "audit", ["position"], unique=True)
    chain = op.create_table(
        "audit_chain",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("anchor_position", sa.BigInteger, nullable=False),
        sa.Column("anchor_hash", sa.Text, nullable=False),
        sa.Column("anchored_at", sa.BigInteger),
    )
    # Lines from before are chained by the first start, as if they had just been written.
    op.bulk_insert(chain, [{"id": 1, "position": 0, "hash": NOTHING, "anchor_position": 0, "anchor_hash": NOTHING}])


def downgrade() -> None:
    op.drop_table("resources")
    op.drop_table("group_members")
    op.drop_table("groups")
    op.drop_table("roles")
    op.drop_table("audit_chain")
    op.drop_index("audit_position", "audit")
    op.drop_column("audit", "hash")
    op.drop_column("audit", "position")
