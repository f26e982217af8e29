"""What administrators change about people: what they are called, where to reach them, that they are here at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, select, update

from auth_svc.audit import Actor, record
from auth_svc.mail import texts
from auth_svc.people import accounts, addresses, mail_links, profile, sessions
from auth_svc.people.accounts import Account
from auth_svc.people.addresses import email_key
from auth_svc.people.user_names import folded, normal
from auth_svc.protocol import families
from auth_svc.proving import guesses
from auth_svc.rights.changes import NotThere
from auth_svc.rights.roles import holds
from auth_svc.tables import group_members, groups, users
from lib_auth.events import UserProfileChanged, UserProfileChangedData
from lib_events.database import Connection
from lib_events.event import Event

type State = Literal["enabled", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which people to list: all for whom everything given is so."""

    text: str | None = None  # in the user name or the e-mail address
    role: str | None = None  # held, through a group or another role, too
    group: str | None = None  # its id or name
    state: State | None = None

    def conditions(self, connection: Connection) -> Sequence[ColumnElement[bool]]:
        """Return what has to be so, for a query of `users`."""
        found: list[ColumnElement[bool]] = [users.c.deleted_at.is_(None)]
        if self.text is not None:
            in_name = users.c.username_key.contains(folded(self.text), autoescape=True)
            found.append(in_name | users.c.email_key.contains(email_key(self.text), autoescape=True))
        if self.role is not None:
            found.append(holds(connection, self.role))
        if self.group is not None:
            either = (groups.c.id == self.group) | (groups.c.name == self.group)
            found.append(users.c.id.in_(select(group_members.c.user_id).join(groups).where(either)))
        if self.state is not None:
            found.append(users.c.disabled_at.is_(None) if self.state == "enabled" else users.c.disabled_at.is_not(None))
        return found


def page(connection: Connection, search: Search, after: str | None, limit: int) -> Sequence[Account]:
    """Return up to `limit` accounts in order of user name, after the one whose key is `after`."""
    query = select(users).where(*search.conditions(connection)).order_by(users.c.username_key).limit(limit)
    if after is not None:
        query = query.where(users.c.username_key > after)
    return accounts.read_accounts(connection, query)


def edit(connection: Connection, user_id: str, changes: Mapping[str, Any], actor: Actor) -> Account:
    """Set `username`, `name` or `email`, which the person then has to prove; raises `AccountRejected`."""
    before = accounts.existing(connection, user_id)
    wanted = replace(before, **changes)
    wanted = replace(wanted, username=normal(wanted.username))
    changed = [name for name in ("username", "name", "email") if getattr(wanted, name) != getattr(before, name)]
    if not changed:
        return before
    accounts.check(wanted.email, wanted.name, before.roles)
    if "username" in changed:
        accounts.check_username(connection, wanted.username, user_id)
    values: dict[str, Any] = {
        "username": wanted.username,
        "username_key": folded(wanted.username),
        "name": wanted.name,
        "changed_at": actor.at,
    }
    if "email" in changed:
        values |= {"email": wanted.email, "email_verified_at": None}
        values["email_key"] = email_key(wanted.email) if wanted.email else None
    connection.execute(update(users).where(users.c.id == user_id).values(values))
    if "email" in changed:
        mail_links.withdraw(connection, "verify", user_id, actor.at)
        if wanted.email is not None:
            addresses.ask(connection, user_id, wanted.username, wanted.email, actor.at)
        told = texts.address_changed(before.username, profile.masked(wanted.email) if wanted.email else None)
        accounts.write_to(connection, before, told, actor.at)
    payload = UserProfileChangedData(
        user=user_id, username=wanted.username, email=wanted.email, by=actor.who, changed=changed
    )
    connection.publish(Event.of(UserProfileChanged, payload, source=connection.source, subject=user_id))
    record(connection, actor, "user.profile-changed", about=user_id, changed=changed)
    return accounts.existing(connection, user_id)


def reset_password(connection: Connection, user_id: str, password_hash: str, actor: Actor) -> Account:
    """Set a password for a person; wrong tries of before count no more."""
    account = accounts.set_password(connection, user_id, password_hash, actor)
    guesses.forget(connection, user_id)
    return account


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
