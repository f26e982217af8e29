"""Whatever has not ended is found without looking at what has."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    _replace("runs_owned", "runs_unfinished", "ended_at IS NULL")


def downgrade() -> None:
    _replace("runs_unfinished", "runs_owned", "ended_at IS NULL AND owner IS NOT NULL")


def _replace(old: str, new: str, condition: str) -> None:
    op.drop_index(old, "runs")
    where = sa.text(condition)
    op.create_index(new, "runs", ["owner"], sqlite_where=where, postgresql_where=where)
