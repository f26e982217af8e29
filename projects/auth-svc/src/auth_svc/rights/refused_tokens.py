"""Access tokens that say too much since something was taken from their holders are refused; new ones say what is so."""

from collections.abc import Sequence

from sqlalchemy import case, update

from auth_svc.protocol.families import MICROS, revoke_access_tokens
from auth_svc.rights.changes import ChangeConflicts
from auth_svc.tables import users
from lib_events.database import Connection

MANY = 5_000  # an event each, in one transaction
BATCH = 500


def refuse_tokens(connection: Connection, user_ids: Sequence[str], at: int) -> None:
    """Refuse the access tokens that these people hold now; raises `ChangeConflicts` when they are too many at once."""
    if len(user_ids) > MANY:
        raise ChangeConflicts(
            "too-many-affected",
            f"this takes something from {len(user_ids)} people, and at most {MANY} can lose it at once; "
            "take it from smaller groups first",
        )
    # Tokens say whole seconds: of two changes within one, the second must reach what was issued after the first.
    later = users.c.tokens_valid_after + MICROS
    until = case((later > at, later), else_=at)
    for first in range(0, len(user_ids), BATCH):
        batch = update(users).where(users.c.id.in_(user_ids[first : first + BATCH]))
        changed = batch.values(tokens_valid_after=until).returning(users.c.id, users.c.tokens_valid_after)
        for row in connection.execute(changed).all():
            revoke_access_tokens(connection, row.id, row.tokens_valid_after)
