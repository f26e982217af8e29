"""People: who can sign in, what they may do, and every change to that as one transaction with its events."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, Select, bindparam, select, update

from auth_svc import listed
from auth_svc.audit import Actor, record
from auth_svc.mail import outbox, texts
from auth_svc.mail.texts import Letter
from auth_svc.opaque import new_id
from auth_svc.people import addresses, consents, mail_links, user_names
from auth_svc.people.addresses import EMAIL, email_key
from auth_svc.people.sessions import end_all_of_user
from auth_svc.people.user_names import folded, normal
from auth_svc.protocol.families import revoke_all_of_user
from auth_svc.rights import roles
from auth_svc.rights.refused_tokens import refuse_tokens
from auth_svc.rights.roles import ROLE, Roles
from auth_svc.tables import clients, group_members, groups, users
from auth_svc.tables import roles as role_table
from lib_auth.events import (
    UserChangedData,
    UserDisabled,
    UserEnabled,
    UserPasswordChanged,
    UserRegistered,
    UserRegisteredData,
    UserRolesChanged,
    UserRolesChangedData,
)
from lib_auth.principal import MEMBER
from lib_events.database import Connection, insert_into
from lib_events.event import Event
from lib_events.prepared import Prepared

# No control characters, of which some turn the letters around (UAX 9): a name must be read as it is written.
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f<>\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]{1,80}")
SELECT_BY_ID = select(users).where((users.c.id == bindparam("id")) & users.c.deleted_at.is_(None))
BY_ID = Prepared(SELECT_BY_ID)
# FOR NO KEY UPDATE: rows that only refer to the account may be inserted meanwhile, by whoever holds a lock we wait for.
LOCKED_BY_ID = Prepared(SELECT_BY_ID.with_for_update(key_share=True))
BY_USERNAME = Prepared(select(users).where(users.c.username_key == bindparam("key")))
SELECT_GROUPS = select(group_members.c.user_id, groups.c.name, groups.c.roles).join(groups)
GROUPS_OF_ONE = Prepared(SELECT_GROUPS.where(group_members.c.user_id == bindparam("id")))
GROUPS_OF = SELECT_GROUPS.where(group_members.c.user_id.in_(bindparam("ids", expanding=True)))
TAKEN = "That user name is taken; choose another."


class AccountRejected(Exception):
    """An account cannot be made or changed like that; `field` is at fault."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class AccountUnknown(Exception):
    """There is no such account."""


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may sign in."""

    id: str
    username: str
    email: str | None
    password_hash: str | None = field(repr=False)
    roles: frozenset[str]
    created_at: int
    disabled_at: int | None
    tokens_valid_after: int
    name: str | None = None
    email_verified: bool = False
    changed_at: int | None = None
    groups: frozenset[str] = frozenset()
    group_roles: frozenset[str] = frozenset()  # what the groups give
    password_changed_at: int = 0
    wrong_passwords: int = 0  # in a row, from browsers they have never signed in with

    @property
    def granted_roles(self) -> frozenset[str]:
        """The person's own roles and those of their groups."""
        return self.roles | self.group_roles

    @property
    def names(self) -> tuple[str, ...]:
        """What a password of theirs should not consist of."""
        return tuple(name for name in (self.username, self.name, self.email) if name)

    @property
    def shown_name(self) -> str:
        """How others call the person."""
        return self.name or self.username

    @property
    def enabled(self) -> bool:
        """Whether the person may sign in."""
        return self.disabled_at is None

    def get_user_id(self) -> str:
        """The subject, under the name Authlib calls it."""
        return self.id


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is needed to make an account."""

    username: str
    password_hash: str | None = field(repr=False)
    email: str | None = None
    roles: frozenset[str] = frozenset((MEMBER,))
    name: str | None = None
    email_verified: bool = False  # the link of an invitation has proven it


def enabled(account: Account | None) -> Account | None:
    """The account, if its person may sign in."""
    return account if account is not None and account.enabled else None


def find(connection: Connection, user_id: str) -> Account | None:
    """Return the account with that id."""
    return _one(connection, connection.row(BY_ID, id=user_id))


def is_free(connection: Connection, user_id: str) -> bool:
    """Whether nobody has, had or is called by that id: what is told of somebody who left stays theirs."""
    named = (users.c.id == user_id) | (users.c.username_key == folded(user_id))
    return connection.scalar(select(users.c.id).where(named).limit(1)) is None


def lock(connection: Connection, user_id: str) -> Account | None:
    """Return the account as it stays until this transaction ends."""
    return _one(connection, connection.row(LOCKED_BY_ID, id=user_id))


def find_by_username(connection: Connection, username: str) -> Account | None:
    """Return the account of that user name, however it is written."""
    return _one(connection, connection.row(BY_USERNAME, key=folded(username)))


def find_by_email(connection: Connection, email: str) -> Account | None:
    """Return the account of whoever has proven that the address is theirs."""
    owner = addresses.owner_of(connection, email)
    return None if owner is None else find(connection, owner.id)


def read_accounts(connection: Connection, query: Select[Any]) -> Sequence[Account]:
    """Return the accounts that a query of `users` finds, with their groups."""
    rows = connection.execute(query).all()
    belongs: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(GROUPS_OF, {"ids": [row.id for row in rows]}) if rows else ():
        belongs.setdefault(row.user_id, []).append(row)
    return [_account(row, belongs.get(row.id, ())) for row in rows]


def lock_all(connection: Connection, user_ids: Iterable[str]) -> Sequence[Account]:
    """Return the accounts there are of these as they stay until this transaction ends."""
    query = select(users).where(users.c.id.in_(user_ids) & users.c.deleted_at.is_(None)).order_by(users.c.id)
    return read_accounts(connection, query.with_for_update(key_share=True))


def register(connection: Connection, new: NewAccount, actor: Actor, user_id: str | None = None) -> Account:
    """Make an account, under an id it had elsewhere or a new one; raises `AccountRejected`."""
    username = normal(new.username)
    email, name = (new.email or "").strip() or None, (new.name or "").strip() or None
    check(email, name, new.roles)
    check_username(connection, username)
    if user_id is not None and connection.scalar(select(clients.c.id).where(clients.c.id == user_id)) is not None:
        raise AccountRejected(
            "id", f"{user_id!r} is the id of a client (RFC 9068 section 5); leave it out for a new one."
        )
    verified = new.email_verified and email is not None and addresses.owner_of(connection, email) is None
    held = new.roles | {MEMBER}
    account = Account(user_id or new_id(), username, email, new.password_hash, held, actor.at, None, 0, name, verified)
    _insert(connection, account)
    payload = UserRegisteredData(user=account.id, username=username, email=email)
    connection.publish(Event.of(UserRegistered, payload, source=connection.source, subject=account.id))
    record(connection, actor, "user.registered", about=account.id, roles=sorted(account.roles))
    if email is not None and not verified:
        addresses.ask(connection, account.id, username, email, actor.at)
    return account


def _insert(connection: Connection, account: Account) -> None:
    statement = insert_into(connection, users).values(
        id=account.id,
        username=account.username,
        username_key=folded(account.username),
        email=account.email,
        email_key=email_key(account.email) if account.email else None,
        email_verified_at=account.created_at if account.email_verified else None,
        name=account.name,
        password_hash=account.password_hash,
        roles=listed.to_text(sorted(account.roles)),
        created_at=account.created_at,
        password_changed_at=account.created_at,
        tokens_valid_after=0,
    )
    # Somebody took the name, or proved the address, at the same time; an error would end the transaction on PostgreSQL.
    if not connection.execute(statement.on_conflict_do_nothing()).rowcount:
        raise AccountRejected("username", TAKEN)


def set_password(
    connection: Connection, user_id: str, password_hash: str, actor: Actor, keep_session: str | None = None
) -> Account:
    """Set a password; every sign-in made with the old one ends, except the one that changes it.

    What programs were allowed has to be allowed anew: one of a thief's would have new tokens with the next look at it.
    """
    account = existing(connection, user_id)
    values = {"password_hash": password_hash, "password_changed_at": actor.at, "wrong_passwords": 0}
    connection.execute(update(users).where(users.c.id == user_id).values(values))
    end_all_of_user(connection, user_id, "password changed", actor.at, keep=keep_session)
    revoke_all_of_user(connection, user_id, "password changed", actor.at, keep_session=keep_session)
    consents.take_back_all(connection, user_id, actor)
    _withdraw_links(connection, account, actor.at)
    tell(connection, UserPasswordChanged, account, actor, "user.password-changed")
    write_to(connection, account, texts.password_changed(account.username), actor.at)
    return account


def _withdraw_links(connection: Connection, account: Account, now: int) -> None:
    """Whoever was signed in before may have asked for links, also to an address of theirs; that to one's own stays."""
    mail_links.withdraw(connection, "recover", account.id, now)
    mail_links.withdraw(connection, "verify", account.id, now, but=email_key(account.email) if account.email else None)


def write_to(connection: Connection, account: Account, letter: Letter, now: int) -> None:
    """Send a letter to a person whose address is proven."""
    if account.email is not None and account.email_verified:
        outbox.put(connection, letter, to=account.email, user_id=account.id, now=now)


def rehash(connection: Connection, user_id: str, old_hash: str, new_hash: str) -> None:
    """Replace the hash of an unchanged password by a stronger one."""
    same = (users.c.id == user_id) & (users.c.password_hash == old_hash)
    connection.execute(update(users).where(same).values(password_hash=new_hash))


def disable(connection: Connection, user_id: str, actor: Actor) -> Account:
    """Stop a person from signing in and end everything they are signed in to."""
    account = existing(connection, user_id)
    if account.enabled:
        values = {"disabled_at": actor.at, "tokens_valid_after": actor.at}
        connection.execute(update(users).where(users.c.id == user_id).values(values))
        end_all_of_user(connection, user_id, "user disabled", actor.at)
        revoke_all_of_user(connection, user_id, "user disabled", actor.at)
        _withdraw_links(connection, account, actor.at)
        tell(connection, UserDisabled, account, actor, "user.disabled")
    return existing(connection, user_id)


def enable(connection: Connection, user_id: str, actor: Actor) -> Account:
    """Let a disabled person sign in again."""
    account = existing(connection, user_id)
    if not account.enabled:
        connection.execute(update(users).where(users.c.id == user_id).values(disabled_at=None))
        tell(connection, UserEnabled, account, actor, "user.enabled")
    return existing(connection, user_id)


def set_roles(connection: Connection, user_id: str, wanted: frozenset[str], actor: Actor) -> Account:
    """Set what a person may do; taking something away refuses the access tokens that still say it."""
    account = existing(connection, user_id)
    check_roles(wanted)
    wanted |= {MEMBER}
    if wanted == account.roles:
        return account
    known = roles.staying(connection)
    if not known.held(account.granted_roles) <= known.held(wanted | account.group_roles):
        refuse_tokens(connection, [user_id], actor.at)
    connection.execute(update(users).where(users.c.id == user_id).values(roles=listed.to_text(sorted(wanted))))
    changed = existing(connection, user_id)
    tell_roles(connection, changed, known, actor)
    record(connection, actor, "user.roles-changed", about=user_id, roles=sorted(wanted))
    return changed


def tell_roles(connection: Connection, account: Account, known: Roles, actor: Actor) -> None:
    """Publish what a person may do now, by themselves, their groups and what their roles include: others keep it.

    The account is locked: what is told last must be what is so.
    """
    held = sorted(known.held(account.granted_roles))
    payload = UserRolesChangedData(user=account.id, username=account.username, by=actor.who, roles=held)
    connection.publish(Event.of(UserRolesChanged, payload, source=connection.source, subject=account.id))


def tell(connection: Connection, event_type: Any, account: Account, actor: Actor, what: str) -> None:
    """Publish and record that something about a person changed."""
    payload = UserChangedData(user=account.id, username=account.username, by=actor.who)
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=account.id))
    record(connection, actor, what, about=account.id)


def existing(connection: Connection, user_id: str) -> Account:
    """Return the account as it stays until this transaction ends; raises `AccountUnknown`."""
    account = lock(connection, user_id)
    if account is None:
        raise AccountUnknown(f"there is no user {user_id!r}; list them with: evs admin user list")
    return account


def has_id(user_id: str) -> Any:
    """What was deleted is no account any more."""
    return (users.c.id == user_id) & users.c.deleted_at.is_(None)


def check_username(connection: Connection, username: str, user_id: str | None = None) -> None:
    """Raise `AccountRejected` for what nobody can be called, or nobody but `user_id`."""
    if (wrong := user_names.fault(username)) is not None:
        raise AccountRejected("username", wrong)
    namesakes = user_names.namesakes(username)
    if len(namesakes) > 1:
        # Two that look alike may come at once, and no index knows that they do: whoever is second waits, at a row that
        # is always there, and sees the first.
        connection.execute(select(role_table.c.name).where(role_table.c.name == MEMBER).with_for_update())
    # Administrators name people by either, and must not do to one what they meant for another.
    named = users.c.username_key.in_(namesakes) | (users.c.id == username)
    if any(found != user_id for found in connection.scalars(select(users.c.id).where(named))):
        raise AccountRejected("username", TAKEN)


def check(email: str | None, name: str | None, roles: frozenset[str]) -> None:
    """Raise `AccountRejected` for what an account cannot have."""
    if email is not None:
        check_email(email)
    if name is not None and not NAME.fullmatch(name):
        raise AccountRejected("name", "A name has up to 80 characters, without < and >.")
    check_roles(roles)


def check_email(email: str) -> None:
    """Raise `AccountRejected` for what is no address."""
    if not EMAIL.fullmatch(email):
        raise AccountRejected("email", "That is not an e-mail address.")


def check_roles(roles: frozenset[str]) -> None:
    """Raise `AccountRejected` for what cannot be a role."""
    for role in roles:
        if not ROLE.fullmatch(role):
            raise AccountRejected("roles", f"A role has lower-case letters, digits, - and _, got {role!r}.")


def _one(connection: Connection, row: Any) -> Account | None:
    return None if row is None else _account(row, connection.rows(GROUPS_OF_ONE, id=row.id))


def _account(row: Any, belongs: Sequence[Any]) -> Account:
    return Account(
        id=row.id,
        username=row.username,
        email=row.email,
        password_hash=row.password_hash,
        roles=frozenset(listed.from_text(row.roles)),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        tokens_valid_after=row.tokens_valid_after,
        name=row.name,
        email_verified=row.email_verified_at is not None,
        changed_at=row.changed_at,
        password_changed_at=row.password_changed_at,
        wrong_passwords=row.wrong_passwords,
        groups=frozenset(group.name for group in belongs),
        group_roles=frozenset(role for group in belongs for role in listed.from_text(group.roles)),
    )
