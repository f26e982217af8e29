"""Access tokens that say too much since something was taken from their holders are refused; new ones say what is so."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Table, case, update

from auth_svc.protocol.families import MICROS, revoke_access_tokens
from auth_svc.rights.changes import ChangeConflicts
from auth_svc.tables import clients, users
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
    for user_id, until in _refuse_older(connection, users, user_ids, at):
        revoke_access_tokens(connection, until, user=user_id)


def refuse_tokens_of_clients(connection: Connection, client_ids: Sequence[str], at: int) -> None:
    """Refuse the access tokens that these clients hold now, people's among them."""
    for client_id, until in _refuse_older(connection, clients, client_ids, at):
        revoke_access_tokens(connection, until, client=client_id)


def _refuse_older(connection: Connection, table: Table, ids: Sequence[str], at: int) -> Iterator[tuple[str, int]]:
    """Say in the holders' rows that tokens issued until now are refused; each with its moment."""
    # Tokens say whole seconds: of two changes within one, the second must reach what was issued after the first.
    later = table.c.tokens_valid_after + MICROS
    until = case((later > at, later), else_=at)
    for first in range(0, len(ids), BATCH):
        batch = update(table).where(table.c.id.in_(ids[first : first + BATCH]))
        changed = batch.values(tokens_valid_after=until).returning(table.c.id, table.c.tokens_valid_after)
        for row in connection.execute(changed).all():
            yield row.id, row.tokens_valid_after
