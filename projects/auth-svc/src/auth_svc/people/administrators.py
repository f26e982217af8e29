"""Administrators: somebody who can sign in always is one, whatever several of them do to each other at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import or_, select

from auth_svc.rights import roles
from auth_svc.rights.roles import Roles, holds
from auth_svc.tables import users
from lib_auth.principal import ADMIN
from lib_events.database import Connection


class LastAdministrator(Exception):
    """Without this account nobody could administer the installation."""


@contextmanager
def keeping_one(connection: Connection) -> Iterator[None]:
    """Let nobody else take an administrator away meanwhile; raises `LastAdministrator` when none is left."""
    before = lock(connection)
    yield
    if before and not lock(connection):
        raise LastAdministrator


def lock(connection: Connection) -> Sequence[str]:
    """The administrators who can sign in; of two who leave at the same time, the second sees the first gone."""
    administering = sorted(Roles(roles.load(connection)).including(ADMIN))  # a role of one's own may include it
    able = users.c.disabled_at.is_(None) & users.c.deleted_at.is_(None) & or_(*map(holds, administering))
    return connection.scalars(select(users.c.id).where(able).order_by(users.c.id).with_for_update()).all()
