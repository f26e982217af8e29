"""Roles: what each includes and which permissions it carries, and every change to that with its event.

`Roles` is a snapshot in memory, as `Resources` is. A role that nobody has described includes nothing but itself.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, or_, select, update

from auth_svc import listed, tables
from auth_svc.audit import Actor, record
from auth_svc.rights.changes import ChangeConflicts, ChangeRejected, NotThere
from auth_svc.rights.refused_tokens import refuse_tokens_of_roles
from auth_svc.tables import group_members, groups, users
from lib_auth.events import RoleChanged, RoleCreated, RoleData, RoleDeleted
from lib_auth.principal import ADMIN, MEMBER, OPERATOR, with_included
from lib_events.database import Connection
from lib_events.event import Event, EventType
from lib_events.prepared import Prepared

ROLE = re.compile(r"[a-z][a-z0-9_-]{0,39}")
DEFINITIONS_TOPIC = "definitions"  # roles or resources are others than before
LAST_REFUSED = Prepared(select(func.max(tables.roles.c.tokens_valid_after).label("moment")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What somebody may do who holds it."""

    name: str
    description: str = ""
    includes: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    built_in: bool = False
    created_at: int = 0
    tokens_valid_after: int = 0  # older access tokens that say it are refused


BUILT_IN = (
    Role(name=MEMBER, description="Everyone: sees the catalogue, works with runs of their own", built_in=True),
    Role(
        name=OPERATOR,
        description="Works with everybody's runs, queues, schedules and dead letters",
        includes=frozenset((MEMBER,)),
        built_in=True,
    ),
    Role(name=ADMIN, description="Administers this service", includes=frozenset((OPERATOR,)), built_in=True),
)


class Roles:
    """The roles of an installation."""

    def __init__(self, roles: Iterable[Role] = ()) -> None:
        self.take(roles)

    def take(self, roles: Iterable[Role]) -> None:
        """Replace what is known."""
        self._known = {role.name: role for role in roles}
        self._refused = {role.name: role.tokens_valid_after for role in self._known.values() if role.tokens_valid_after}
        self.last_refused = max(self._refused.values(), default=0)
        self._held = lru_cache(1024)(self._find_held)  # asked for every token

    def held(self, names: Iterable[str]) -> frozenset[str]:
        """Return `names` and every role they include, directly or not."""
        return self._held(frozenset(names))

    def _find_held(self, names: frozenset[str]) -> frozenset[str]:
        held = set(with_included(names))
        rest = list(held)
        while rest:
            role = self._known.get(rest.pop())
            more = with_included(role.includes) - held if role is not None else frozenset()
            held |= more
            rest += more
        return frozenset(held)

    def permissions(self, names: Iterable[str]) -> frozenset[str]:
        """Return what whoever holds `names` may do."""
        found = (self._known.get(name) for name in self.held(names))
        return frozenset().union(*(role.permissions for role in found if role is not None))

    def including(self, name: str) -> frozenset[str]:
        """Return the roles whose holders hold `name`."""
        return frozenset(role for role in (*self._known, name) if name in self.held([role]))

    def refused_until(self, held: Iterable[str]) -> int:
        """Return the last moment in which tokens that say one of these roles were refused."""
        return max((self._refused[name] for name in held if name in self._refused), default=0) if self._refused else 0


def load(connection: Connection) -> list[Role]:
    """Return every described role, the built-in ones first."""
    query = select(tables.roles).order_by(tables.roles.c.built_in.desc(), tables.roles.c.name)
    return [_role(row) for row in connection.execute(query)]


def staying(connection: Connection) -> Roles:
    """Return the roles as they stay until this transaction ends: whoever changes one locks all of them."""
    connection.execute(select(tables.roles.c.name).where(tables.roles.c.name == MEMBER).with_for_update(read=True))
    return Roles(load(connection))


def last_refused(connection: Connection) -> int:
    """Return when something was last taken from a role: who knows of no such moment knows an older definition."""
    moment: int | None = connection.row(LAST_REFUSED).moment
    return moment or 0


def find(connection: Connection, name: str) -> Role:
    """Return a role; raises `NotThere`."""
    row = connection.execute(select(tables.roles).where(tables.roles.c.name == name).with_for_update()).one_or_none()
    if row is None:
        raise NotThere("role", name)
    return _role(row)


def create(connection: Connection, role: Role, actor: Actor) -> Role:
    """Describe a new role; raises `ChangeRejected`."""
    if not ROLE.fullmatch(role.name):
        raise ChangeRejected("name", f"A role has lower-case letters, digits, - and _, got {role.name!r}.")
    _lock(connection)
    known = load(connection)
    if any(other.name == role.name for other in known):
        raise ChangeRejected("name", f"There is a role {role.name!r} already; choose another name.")
    _check(connection, role, known)
    _insert(connection, role, actor.at)
    _tell(connection, RoleCreated, role, actor)
    return replace(role, created_at=actor.at)


def change(connection: Connection, name: str, changes: Mapping[str, Any], actor: Actor) -> Role:
    """Set fields of a role; what it takes from its holders is refused at once. Raises as `create` and `find` do."""
    _lock(connection)
    before, known = find(connection, name), load(connection)
    role = replace(before, **changes)
    if role == before:
        return before
    if before.built_in and role.includes != before.includes:
        raise ChangeConflicts("built-in", f"the role {name} is built in: what it includes stays")
    _check(connection, role, known)
    old, new = Roles(known), Roles(role if other.name == name else other for other in known)
    if not (old.held([name]) <= new.held([name]) and before.permissions <= role.permissions):
        # Who holds a role that includes it has it in their tokens, too.
        refuse_tokens_of_roles(connection, [name], actor.at)
    connection.execute(update(tables.roles).where(tables.roles.c.name == name).values(_columns(role)))
    _tell(connection, RoleChanged, role, actor)
    return role


def remove(connection: Connection, name: str, actor: Actor) -> None:
    """Forget what a role says; nobody may hold or include it any more. Raises `NotThere`, `ChangeConflicts`."""
    _lock(connection)
    role = find(connection, name)
    if role.built_in:
        raise ChangeConflicts("built-in", f"the role {name} is built in and stays")
    if others := [other.name for other in load(connection) if name in other.includes]:
        raise ChangeConflicts("role-in-use", f"the role {name} is included by {', '.join(others)}; change them first")
    tables_of_holders = (users, groups, tables.clients)
    if any(
        connection.scalar(select(table.c.id).where(says(table.c.roles, name)).limit(1)) for table in tables_of_holders
    ):
        raise ChangeConflicts("role-in-use", f"somebody holds the role {name}; take it from them first")
    connection.execute(delete(tables.roles).where(tables.roles.c.name == name))
    _tell(connection, RoleDeleted, role, actor)


def holds(connection: Connection, name: str) -> ColumnElement[bool]:
    """Whether a user holds a role, through a group or a role that includes it, too, as a condition."""
    giving = sorted(Roles(load(connection)).including(name))
    through = select(group_members.c.user_id).join(groups).where(or_(*(says(groups.c.roles, role) for role in giving)))
    return or_(*(says(users.c.roles, role) for role in giving)) | users.c.id.in_(through)


def described(connection: Connection, names: Iterable[str]) -> frozenset[str]:
    """Return which of these roles there are, and stay until this transaction ends: who removes one waits."""
    possible = {name for name in names if ROLE.fullmatch(name)}
    named = select(tables.roles.c.name).where(tables.roles.c.name.in_(possible)).order_by(tables.roles.c.name)
    return frozenset(connection.scalars(named.with_for_update(read=True)))


def check_known(connection: Connection, names: Iterable[str]) -> None:
    """Raise `ChangeRejected` for a role that nobody has described: it would be a mistake in writing."""
    if unknown := sorted(set(names) - described(connection, names)):
        hint = f"make it with: evs admin role create {unknown[0]}"
        raise ChangeRejected("roles", f"There is no role {unknown[0]!r}; {hint}")


def put_built_in(connection: Connection, now: int) -> None:
    """See to it that the built-in roles, and those that somebody holds already, are described."""
    known = {role.name for role in load(connection)}
    held: set[str] = set()
    for column in (users.c.roles, tables.clients.c.roles):
        held.update(*(listed.from_text(kept) for kept in connection.scalars(select(column).distinct())))
    described = {role.name for role in BUILT_IN}
    for role in (*BUILT_IN, *(Role(name=name) for name in sorted(held - described))):
        if role.name not in known:
            _insert(connection, role, now)


def _lock(connection: Connection) -> None:
    """Let nobody else change a role meanwhile: two changes, each right by itself, could include each other."""
    connection.execute(select(tables.roles.c.name).order_by(tables.roles.c.name).with_for_update()).all()


def _insert(connection: Connection, role: Role, now: int) -> None:
    connection.execute(insert(tables.roles).values(_columns(role) | {"name": role.name, "created_at": now}))


def _check(connection: Connection, role: Role, known: Sequence[Role]) -> None:
    if unknown := sorted(role.includes - {other.name for other in known}):
        raise ChangeRejected("includes", f"There is no role {unknown[0]!r} to include.")
    others = [other for other in known if other.name != role.name]
    if role.name in Roles([*others, role]).held(role.includes):
        raise ChangeRejected("includes", f"A role must not include itself, but {role.name!r} would.")
    possible: set[str] = set()
    for kept in connection.scalars(select(tables.resources.c.permissions)):
        possible.update(listed.from_text(kept))
    if wrong := sorted(role.permissions - possible):
        raise ChangeRejected("permissions", f"No resource has the permission {wrong[0]!r}; add it there first.")


def says(column: Any, name: str) -> ColumnElement[bool]:
    """Whether a column of roles holds one, as a condition."""
    condition: ColumnElement[bool] = column.contains(f'"{name}"', autoescape=True)
    return condition


def _tell(connection: Connection, event_type: EventType[RoleData], role: Role, actor: Actor) -> None:
    includes, permissions = sorted(role.includes), sorted(role.permissions)
    payload = RoleData(role=role.name, by=actor.who, includes=includes, permissions=permissions)
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=role.name))
    what = event_type.name.removeprefix("evs.")
    record(connection, actor, what, about=role.name, includes=includes, permissions=permissions)
    connection.notify(DEFINITIONS_TOPIC)


def _columns(role: Role) -> dict[str, Any]:
    return {
        "description": role.description,
        "includes": listed.to_text(sorted(role.includes)),
        "permissions": listed.to_text(sorted(role.permissions)),
        "built_in": role.built_in,
    }


def _role(row: Row[Any]) -> Role:
    return Role(
        name=row.name,
        description=row.description,
        includes=frozenset(listed.from_text(row.includes)),
        permissions=frozenset(listed.from_text(row.permissions)),
        built_in=row.built_in,
        created_at=row.created_at,
        tokens_valid_after=row.tokens_valid_after,
    )
