"""Access tokens that say too much since something was taken from their holders are refused; new ones say what is so.

Where it is taken from some people, each is named. Where it is taken from a role, the role is: every token says which
roles its holder has, so one mark and one event reach all of them, however many they are.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Column, Table, case, func, select, update

from auth_svc.protocol.families import MICROS, revoke_access_tokens
from auth_svc.tables import clients, roles, users
from lib_events.database import Connection

BATCH = 500


def refuse_tokens(connection: Connection, user_ids: Sequence[str], at: int) -> None:
    """Refuse the access tokens that these people hold now; each is told by an event, so they must not be too many."""
    for user_id, until in _refuse_older(connection, users.c.id, user_ids, _beyond(connection, at, roles)):
        revoke_access_tokens(connection, until, user=user_id)


def refuse_tokens_of_clients(connection: Connection, client_ids: Sequence[str], at: int) -> None:
    """Refuse the access tokens that these clients hold now, people's among them."""
    for client_id, until in _refuse_older(connection, clients.c.id, client_ids, _beyond(connection, at, roles)):
        revoke_access_tokens(connection, until, client=client_id)


def refuse_tokens_of_roles(connection: Connection, names: Sequence[str], at: int) -> None:
    """Refuse the access tokens that say one of these roles now, whoever holds them and however they have the role."""
    for name, until in _refuse_older(connection, roles.c.name, names, _beyond(connection, at, roles, users, clients)):
        revoke_access_tokens(connection, until, role=name)


def _beyond(connection: Connection, at: int, *tables: Table) -> int:
    """Return the moment until which to refuse, so that it reaches tokens that another mark has moved on.

    Tokens say whole seconds, and one that is issued in the very second of a mark says the next: of two changes within
    a second, the later must reach what was issued between them.
    """
    second = at // MICROS * MICROS
    marks = [
        select(func.max(table.c.tokens_valid_after)).where(table.c.tokens_valid_after >= second) for table in tables
    ]
    found: list[int | None] = [connection.scalar(query) for query in marks]
    return max([at, *(mark + MICROS for mark in found if mark is not None)])


def _refuse_older(connection: Connection, key: Column[str], keys: Sequence[str], at: int) -> Iterator[tuple[str, int]]:
    """Say in the rows that these keys name that tokens issued until then are refused; each with its moment."""
    marked: Column[int] = key.table.c.tokens_valid_after
    later = marked + MICROS  # for the same reason
    until = case((later > at, later), else_=at)
    for first in range(0, len(keys), BATCH):
        batch = update(key.table).where(key.in_(keys[first : first + BATCH]))
        changed = batch.values(tokens_valid_after=until).returning(key.label("named"), marked.label("until"))
        for row in connection.execute(changed).all():
            yield row.named, row.until
