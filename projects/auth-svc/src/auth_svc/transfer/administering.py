"""Which roles, groups and clients make an administrator: an import from another system adds none."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select

from auth_svc import listed, tables
from auth_svc.rights import roles
from auth_svc.rights.roles import Roles
from lib_auth.principal import ADMIN
from lib_events.database import Connection


def administering(connection: Connection) -> frozenset[str]:
    """Return what holds the role admin, directly or not, each by kind and name."""
    known = Roles(roles.load(connection))
    groups = connection.execute(select(tables.groups.c.name, tables.groups.c.roles))
    clients = connection.execute(select(tables.clients.c.id, tables.clients.c.roles))
    named = (f"the role {name}" for name in known.including(ADMIN))
    return frozenset((*named, *_holding(known, "the group", groups), *_holding(known, "the client", clients)))


def makes_administrator(connection: Connection, held: Iterable[str]) -> bool:
    """Whether whoever holds these roles administers this service."""
    return ADMIN in Roles(roles.load(connection)).held(held)


def _holding(known: Roles, kind: str, rows: Iterable[Any]) -> Iterable[str]:
    return (f"{kind} {name}" for name, held in rows if ADMIN in known.held(listed.from_text(held)))
