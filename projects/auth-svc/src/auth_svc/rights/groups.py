"""Groups: people who may do the same; whoever is in one holds its roles beside their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from auth_svc import listed
from auth_svc.audit import Actor, record
from auth_svc.clients import clients
from auth_svc.opaque import new_id
from auth_svc.people import accounts
from auth_svc.rights import role_news, roles
from auth_svc.rights.changes import ChangeConflicts, ChangeRejected, NotThere
from auth_svc.rights.refused_tokens import refuse_tokens, refuse_tokens_of_roles
from auth_svc.rights.roles import DEFINITIONS_TOPIC, Roles
from auth_svc.tables import group_members, groups
from lib_auth.events import (
    GroupChanged,
    GroupCreated,
    GroupData,
    GroupDeleted,
    GroupMemberAdded,
    GroupMemberData,
    GroupMemberRemoved,
)
from lib_auth.principal import ADMIN, MEMBER
from lib_events.database import Connection
from lib_events.event import Event, EventType

MAX_MEMBERS = 50_000
FEW = 500  # whose tokens are refused one by one, and who are told of in the same transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some people and what all of them may do."""

    name: str
    id: str = ""
    description: str = ""
    roles: frozenset[str] = frozenset()
    created_at: int = 0


def page(connection: Connection, after: str | None, limit: int) -> Sequence[Group]:
    """Return up to `limit` groups by name, after the one named `after`."""
    query = select(groups).order_by(groups.c.name).limit(limit)
    if after is not None:
        query = query.where(groups.c.name > after)
    return [_group(row) for row in connection.execute(query)]


def find(connection: Connection, group: str) -> Group:
    """Return a group by id or name, as it stays until this transaction ends; raises `NotThere`."""
    either = (groups.c.id == group) | (groups.c.name == group)
    rows = connection.execute(select(groups).where(either).with_for_update()).all()
    if not rows:
        raise NotThere("group", group)
    return _group(next((row for row in rows if row.id == group), rows[0]))


def create(connection: Connection, group: Group, actor: Actor) -> Group:
    """Make a group; raises `ChangeRejected`."""
    made = replace(group, id=new_id(), created_at=actor.at)
    _check(connection, made)
    connection.execute(insert(groups).values(_columns(made) | {"id": made.id, "created_at": actor.at}))
    _tell(connection, GroupCreated, made, actor)
    return made


def change(connection: Connection, group: str, changes: Mapping[str, Any], actor: Actor) -> Group:
    """Set fields of a group; roles that it takes from its members are refused at once."""
    before = find(connection, group)
    changed = replace(before, **changes)
    if changed == before:
        return before
    _check(connection, changed)
    connection.execute(update(groups).where(groups.c.id == before.id).values(_columns(changed)))
    members = _few_members(connection, before)
    _refuse_lost(connection, before, changed.roles, actor, members=members)
    _tell(connection, GroupChanged, changed, actor)
    if changed.roles != before.roles:
        if members is None:
            role_news.leave(connection, before.id, actor)
        else:
            _tell_roles(connection, members, actor)
    return changed


def remove(connection: Connection, group: str, actor: Actor) -> None:
    """Delete a group; its members lose its roles at once."""
    before = find(connection, group)
    members = _few_members(connection, before)
    if members is None:
        role_news.leave(connection, before.id, actor)
    connection.execute(delete(group_members).where(group_members.c.group_id == before.id))
    connection.execute(delete(groups).where(groups.c.id == before.id))
    _refuse_lost(connection, before, frozenset(), actor, members=members)
    _tell(connection, GroupDeleted, before, actor)
    _tell_roles(connection, members or (), actor)


def add_member(connection: Connection, group: str, user_id: str, actor: Actor) -> None:
    """Put a person into a group; raises `ChangeConflicts` when it is full, and `AccountUnknown`."""
    into = find(connection, group)
    accounts.existing(connection, user_id)  # whoever is being deleted is in no group
    mine = (group_members.c.group_id == into.id) & (group_members.c.user_id == user_id)
    if connection.scalar(select(group_members.c.user_id).where(mine)) is not None:
        return
    if count_members(connection, [into.id]).get(into.id, 0) >= MAX_MEMBERS:
        raise ChangeConflicts("group-full", f"a group has at most {MAX_MEMBERS} members; make another one")
    connection.execute(insert(group_members).values(group_id=into.id, user_id=user_id, added_at=actor.at))
    _tell_member(connection, GroupMemberAdded, into, user_id, actor)
    _tell_roles(connection, [user_id], actor)


def remove_member(connection: Connection, group: str, user_id: str, actor: Actor) -> None:
    """Take a person out of a group; what only it gave them is refused at once. Raises `NotThere`."""
    out_of = find(connection, group)
    mine = (group_members.c.group_id == out_of.id) & (group_members.c.user_id == user_id)
    if not connection.execute(delete(group_members).where(mine)).rowcount:
        raise NotThere("member", user_id)
    _refuse_lost(connection, out_of, frozenset(), actor, members=[user_id])
    _tell_member(connection, GroupMemberRemoved, out_of, user_id, actor)
    _tell_roles(connection, [user_id], actor)


def _few_members(connection: Connection, group: Group) -> Sequence[str] | None:
    """Return who is in a group; None when they are more than `FEW`."""
    query = select(group_members.c.user_id).where(group_members.c.group_id == group.id)
    found = connection.scalars(query.limit(FEW + 1)).all()
    return found if len(found) <= FEW else None


def count_members(connection: Connection, group_ids: Sequence[str]) -> Mapping[str, int]:
    """Return how many people are in each of these groups; a group without any is left out."""
    column = group_members.c.group_id
    counts = select(column, func.count().label("members")).where(column.in_(group_ids)).group_by(column)
    return {row.group_id: row.members for row in connection.execute(counts)}


def keep_own_access(connection: Connection, actor: Actor) -> None:
    """Raise `ChangeConflicts` when whoever makes the change is no administrator once it is made.

    They would have taken it from themselves, or somebody has put them out since they asked: as they stay until this
    transaction ends, so somebody who can sign in administers.
    """
    if actor.who is None or not clients.is_person(connection, actor.who):
        return  # a program, or somebody at the machine itself
    account = accounts.enabled(accounts.lock(connection, actor.who))
    if account is None or ADMIN not in Roles(roles.load(connection)).held(account.granted_roles):
        text = "you would administer no more, or do not already: nobody takes the role admin from themselves"
        raise ChangeConflicts("own-account", f"{text}; ask another administrator")


def _refuse_lost(
    connection: Connection,
    before: Group,
    remaining: frozenset[str],
    actor: Actor,
    *,
    members: Sequence[str] | None,
) -> None:
    """Refuse what the members' tokens say too much; of many by the roles that they lose, which reaches others, too.

    Whoever has such a role in another way gets a new token and goes on.
    """
    known = Roles(roles.load(connection))
    lost = known.held(before.roles) - known.held((*remaining, MEMBER))
    if not lost:
        return
    if members is None:
        refuse_tokens_of_roles(connection, sorted(lost), actor.at)
        connection.notify(DEFINITIONS_TOPIC)  # what is issued from now on must not look like one of them
    else:
        refuse_tokens(connection, members, actor.at)
    keep_own_access(connection, actor)


def _check(connection: Connection, group: Group) -> None:
    if not group.name.strip() or group.name != group.name.strip():
        raise ChangeRejected("name", "A group's name has at least one letter and no blanks around it.")
    taken = select(groups.c.id).where((groups.c.name == group.name) & (groups.c.id != group.id))
    if connection.scalar(taken) is not None:
        raise ChangeRejected("name", f"There is a group {group.name!r} already; choose another name.")
    roles.check_known(connection, group.roles)


def _tell(connection: Connection, event_type: EventType[GroupData], group: Group, actor: Actor) -> None:
    payload = GroupData(group=group.id, name=group.name, roles=sorted(group.roles), by=actor.who)
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=group.id))
    what = event_type.name.removeprefix("evs.")
    record(connection, actor, what, about=group.id, name=group.name, roles=sorted(group.roles))


def _tell_member(
    connection: Connection, event_type: EventType[GroupMemberData], group: Group, user_id: str, actor: Actor
) -> None:
    payload = GroupMemberData(group=group.id, name=group.name, user=user_id, by=actor.who)
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=group.id))
    record(connection, actor, event_type.name.removeprefix("evs."), about=group.id, name=group.name, user=user_id)


def _tell_roles(connection: Connection, user_ids: Sequence[str], actor: Actor) -> None:
    """Tell what each of these few may do now that a group of theirs changed."""
    known = roles.staying(connection)
    for account in accounts.lock_all(connection, user_ids):
        accounts.tell_roles(connection, account, known, actor)


def _columns(group: Group) -> dict[str, Any]:
    kept = listed.to_text(sorted(group.roles))
    return {"name": group.name, "description": group.description, "roles": kept}


def _group(row: Row[Any]) -> Group:
    return Group(
        id=row.id,
        name=row.name,
        description=row.description,
        roles=frozenset(listed.from_text(row.roles)),
        created_at=row.created_at,
    )
