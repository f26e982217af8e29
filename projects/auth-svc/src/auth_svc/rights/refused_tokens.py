"""Access tokens that say too much since something was taken from their holders are refused; new ones say what is so.

Where it is taken from some people, each is named. Where it is taken from a role, the role is: every token says which
roles its holder has, so one mark and one event reach all of them, however many they are.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Select, case, func, select, update

from auth_svc.protocol.families import MICROS, revoke_access_tokens
from auth_svc.tables import clients, families, roles, users
from lib_events.clock import SystemClock
from lib_events.database import Connection

BATCH = 500
COMMIT_MICROS = 2_000_000  # from a mark to where everybody sees it: milliseconds, but for a service that is overloaded
EXCHANGE = "token-exchange"
MARKED_ROLES, MARKED_CLIENTS, MARKED_USERS = (
    select(func.max(table.c.tokens_valid_after)) for table in (roles, clients, users)
)


def refuse_tokens(connection: Connection, user_ids: Sequence[str], at: int) -> None:
    """Refuse the access tokens that these people hold now; each is told by an event, so they must not be too many."""
    reach = _beyond(connection, at, MARKED_ROLES, MARKED_CLIENTS)
    for user_id, until in _refuse_older(connection, users.c.id, user_ids, reach):
        revoke_access_tokens(connection, until, user=user_id)


def refuse_tokens_of_clients(connection: Connection, client_ids: Sequence[str], at: int) -> None:
    """Refuse the access tokens that these clients hold now, people's among them."""
    reach = _beyond(connection, at, MARKED_ROLES, _marked_people(connection, client_ids))
    for client_id, until in _refuse_older(connection, clients.c.id, client_ids, reach):
        revoke_access_tokens(connection, until, client=client_id)


def refuse_tokens_of_roles(connection: Connection, names: Sequence[str], at: int) -> None:
    """Refuse the access tokens that say one of these roles now, whoever holds them and however they have the role."""
    reach = _beyond(connection, at, MARKED_ROLES, MARKED_CLIENTS, MARKED_USERS)
    for name, until in _refuse_older(connection, roles.c.name, names, reach):
        revoke_access_tokens(connection, until, role=name)


def _beyond(connection: Connection, at: int, *marked: Select[Any]) -> int:
    """Return the moment until which to refuse, so that it reaches what is issued until this is committed.

    The change may have waited for the database since it was asked for, and what was so is read until it is there.

    Tokens say whole seconds, and one that is issued in the very second of a mark says the next: of two changes within
    a second, the later must reach what was issued between them, whoever was `marked`: a token has a person, a client
    and roles.
    """
    at = max(at, SystemClock().micros() + COMMIT_MICROS)
    found: list[int | None] = [connection.scalar(query) for query in marked]
    return max([at, *(mark + MICROS for mark in found if mark is not None and mark >= at // MICROS * MICROS)])


def _marked_people(connection: Connection, client_ids: Sequence[str]) -> Select[Any]:
    """The people of these clients' tokens; one that exchanges tokens may have those of anybody."""
    exchanges = clients.c.id.in_(client_ids) & clients.c.grant_types.contains(EXCHANGE)
    if connection.scalar(select(clients.c.id).where(exchanges).limit(1)) is not None:
        return MARKED_USERS
    mine = select(families.c.user_id).where(families.c.client_id.in_(client_ids))
    return MARKED_USERS.where(users.c.id.in_(mine))


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
