"""Registration tokens say who made them; what one did, or what was done to one, is found in the audit by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

MAKER = """UPDATE registration_tokens SET created_by = COALESCE(
    (SELECT MIN(who) FROM audit WHERE what = 'registration-token.issued' AND about = registration_tokens.id), '')"""


def upgrade() -> None:
    op.create_index("audit_who", "audit", ["who", "id"])
    op.create_index("audit_about", "audit", ["about", "id"])
    op.add_column("registration_tokens", sa.Column("created_by", sa.Text, nullable=False, server_default=""))
    op.execute(MAKER)


def downgrade() -> None:
    op.drop_column("registration_tokens", "created_by")
    op.drop_index("audit_about", "audit")
    op.drop_index("audit_who", "audit")
