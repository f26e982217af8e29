"""Administrators: somebody who can sign in always is one, whatever several of them do to each other at once.

What one has given to others, an invitation or a registration token, is worth something as long as they are one.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import select

from auth_svc.clients import clients
from auth_svc.people import accounts
from auth_svc.rights import roles
from auth_svc.rights.roles import Roles, holds
from auth_svc.tables import users
from lib_auth.principal import ADMIN
from lib_events.database import Connection


class LastAdministrator(Exception):
    """Without this account nobody could administer the installation."""


class AdministersNoMore(Exception):
    """Whoever wants a change administered when they asked for it, and does not any more."""


@contextmanager
def keeping_one(connection: Connection) -> Iterator[None]:
    """Let nobody else take an administrator away meanwhile; raises `LastAdministrator` when none is left."""
    before = lock(connection)
    yield
    if before and not lock(connection):
        raise LastAdministrator


def lock(connection: Connection) -> Sequence[str]:
    """The administrators who can sign in; of two who leave at the same time, the second sees the first gone."""
    able = users.c.disabled_at.is_(None) & users.c.deleted_at.is_(None) & holds(connection, ADMIN)
    return connection.scalars(select(users.c.id).where(able).order_by(users.c.id).with_for_update()).all()


def administers(connection: Connection, who: str) -> bool:
    """Whether a person, or a program with a client of its own, may administer now."""
    account = accounts.find(connection, who)
    if account is not None:
        return account.enabled and _includes_admin(connection, account.granted_roles)
    client = clients.find(connection, who)
    if client is None or client.disabled_at is not None or ADMIN not in client.scopes:
        return False
    return _includes_admin(connection, client.roles)


def confirm(connection: Connection, who: str) -> None:
    """Raise `AdministersNoMore` unless a person administers once everything of this transaction has happened.

    Not locked: whoever has waited for others here would wait for them in another order than they. What is between this
    and the commit is no wait. A program may take its own client away.
    """
    if clients.is_person(connection, who) and not administers(connection, who):
        raise AdministersNoMore


def _includes_admin(connection: Connection, held: Iterable[str]) -> bool:
    return ADMIN in Roles(roles.load(connection)).held(held)
