"""An idempotency key holds also where no principal is known: NULLs are all different to a unique index."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

GIVEN = sa.text("idempotency_key IS NOT NULL")


def upgrade() -> None:
    _replace([sa.text("(coalesce(principal, ''))"), "idempotency_key"])


def downgrade() -> None:
    _replace(["principal", "idempotency_key"])


def _replace(columns: list[str | sa.TextClause]) -> None:
    op.drop_index("runs_idempotency", "runs")
    op.create_index("runs_idempotency", "runs", columns, unique=True, sqlite_where=GIVEN, postgresql_where=GIVEN)
