"""What administrators change about people: what they are called, where to reach them, that they are here at all."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Table, delete, func, select, update

from auth_svc import accounts, families, sessions
from auth_svc.accounts import Account, AccountRejected, username_key
from auth_svc.audit import Actor, record
from auth_svc.changes import NotThere
from auth_svc.roles import holds
from auth_svc.tables import consents, group_members, groups, metadata, users
from auth_svc.tables import families as family_rows
from lib_auth.events import UserChanged, UserChangedData, UserDeleted, UserProfileChangedData
from lib_events.database import Connection
from lib_events.event import Event

type State = Literal["enabled", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which people to list: all for whom everything given is so."""

    text: str | None = None  # in the user name or the e-mail address
    role: str | None = None  # held, by themselves or through a group
    group: str | None = None  # its id or name
    state: State | None = None

    def conditions(self) -> Sequence[ColumnElement[bool]]:
        """Return what has to be so, for a query of `users`."""
        found: list[ColumnElement[bool]] = []
        if self.text is not None:
            in_name = users.c.username_key.contains(username_key(self.text), autoescape=True)
            found.append(in_name | func.lower(users.c.email).contains(self.text.lower(), autoescape=True))
        if self.role is not None:
            found.append(holds(self.role))
        if self.group is not None:
            either = (groups.c.id == self.group) | (groups.c.name == self.group)
            found.append(users.c.id.in_(select(group_members.c.user_id).join(groups).where(either)))
        if self.state is not None:
            found.append(users.c.disabled_at.is_(None) if self.state == "enabled" else users.c.disabled_at.is_not(None))
        return found


def page(connection: Connection, search: Search, after: str | None, limit: int) -> Sequence[Account]:
    """Return up to `limit` accounts in order of user name, after the one whose key is `after`."""
    query = select(users).where(*search.conditions()).order_by(users.c.username_key).limit(limit)
    if after is not None:
        query = query.where(users.c.username_key > after)
    return accounts.read_accounts(connection, query)


def edit(connection: Connection, user_id: str, changes: Mapping[str, Any], actor: Actor) -> Account:
    """Set `username` or `email`; raises `AccountRejected`."""
    before = accounts.existing(connection, user_id)
    wanted = replace(before, **changes)
    wanted = replace(wanted, username=unicodedata.normalize("NFKC", wanted.username.strip()))
    changed = [name for name in ("username", "email") if getattr(wanted, name) != getattr(before, name)]
    if not changed:
        return before
    accounts.check(wanted.username, wanted.email, before.roles)
    other = accounts.find_by_username(connection, wanted.username)
    if other is not None and other.id != user_id:
        raise AccountRejected("username", "That user name is taken; choose another.")
    values = {"username": wanted.username, "username_key": username_key(wanted.username), "email": wanted.email}
    connection.execute(update(users).where(users.c.id == user_id).values(values))
    payload = UserProfileChangedData(
        user=user_id, username=wanted.username, email=wanted.email, by=actor.who, changed=changed
    )
    connection.publish(Event.of(UserChanged, payload, source=connection.source, subject=user_id))
    record(connection, actor, "user.changed", about=user_id, username=wanted.username, changed=changed)
    return accounts.existing(connection, user_id)


def remove(connection: Connection, user_id: str, actor: Actor) -> None:
    """Delete a person and all that is theirs; the audit keeps what was done, under the id that nobody has any more."""
    account = accounts.existing(connection, user_id)
    sessions.end_all_of_user(connection, user_id, "user deleted", actor.at)
    families.revoke_all_of_user(connection, user_id, "user deleted", actor.at)
    families.revoke_access_tokens(connection, user_id, actor.at)
    _delete_with_dependents(connection, users, users.c.id == user_id)
    payload = UserChangedData(user=user_id, username=account.username, by=actor.who)
    connection.publish(Event.of(UserDeleted, payload, source=connection.source, subject=user_id))
    record(connection, actor, "user.deleted", about=user_id, username=account.username)


def end_session(connection: Connection, user_id: str, session_id: str, actor: Actor) -> None:
    """End one of a person's sessions; raises `NotThere`."""
    session = sessions.find(connection, session_id)
    if session is None or session.user_id != user_id or not sessions.end(connection, session_id, "ended", actor.at):
        raise NotThere("session", session_id)
    record(connection, actor, "session.ended", about=session_id, user=user_id)


def end_sessions(connection: Connection, user_id: str, actor: Actor) -> None:
    """Sign a person out everywhere, of what outlives sessions, too."""
    accounts.existing(connection, user_id)
    sessions.end_all_of_user(connection, user_id, "ended", actor.at)
    families.revoke_all_of_user(connection, user_id, "ended", actor.at)
    record(connection, actor, "sessions.ended", about=user_id)


def withdraw_consent(connection: Connection, user_id: str, client_id: str, actor: Actor) -> None:
    """Forget what a person allowed a client, and end what came of it; raises `NotThere`."""
    mine = (consents.c.user_id == user_id) & (consents.c.client_id == client_id)
    if not connection.execute(delete(consents).where(mine)).rowcount:
        raise NotThere("consent", client_id)
    theirs = (family_rows.c.user_id == user_id) & (family_rows.c.client_id == client_id)
    for family_id in connection.scalars(select(family_rows.c.id).where(theirs)).all():
        families.revoke(connection, family_id, "consent withdrawn", actor.at)
    record(connection, actor, "consent.withdrawn", about=user_id, client=client_id)


def _delete_with_dependents(connection: Connection, table: Table, which: ColumnElement[bool]) -> None:
    """Delete rows and, before them, every row of any table that depends on them."""
    for other in metadata.sorted_tables:
        for key in other.foreign_keys:
            if key.column.table is table:
                owners = select(key.column).where(which)
                _delete_with_dependents(connection, other, key.parent.in_(owners))
    connection.execute(delete(table).where(which))
