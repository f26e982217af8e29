"""Import: brings what a document says into the rows, item by item, each as its own command would; twice is as once.

A few transactions do it, because one that holds the database for thousands of people would stop everybody else. Each
first decides the definitions again, which the second time are as they should be, then a batch of people. So a
rehearsal is the same work, undone: what it reports is what happens.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError
from sqlalchemy import update

from auth_svc import opaque, tables
from auth_svc.audit import Actor, record
from auth_svc.clients import clients
from auth_svc.clients.client import Client, ClientRejected
from auth_svc.people import account_changes, accounts
from auth_svc.people.accounts import Account, AccountRejected, NewAccount
from auth_svc.rights import groups, resource_servers, resources, roles
from auth_svc.rights.changes import ChangeConflicts, ChangeRejected, NotThere
from auth_svc.rights.groups import Group
from auth_svc.rights.resources import Resource
from auth_svc.rights.roles import Role
from auth_svc.transfer.document import (
    ClientItem,
    Document,
    GroupItem,
    Outcome,
    Report,
    ReportItem,
    ResourceItem,
    RoleItem,
    UserItem,
)
from auth_svc.transfer.exporting import client_item, is_exported, resource_item, user_item
from lib_auth.principal import MEMBER
from lib_events.database import Connection, Database

BATCH = 10  # people in one transaction: others wait for it
# A hash is checked at every sign-in: one that asks for more than this would be a way to stop the service.
MAX_MEMORY_KIB, MAX_TIME_COST, MAX_PARALLELISM = 256 * 1024, 16, 8
MUST_RECOVER = "the password's hash cannot be taken over: they must be given a new password"
# These speak against the whole document, not against one item of it.
FATAL = frozenset(("own-account", "too-many-affected"))

type Decided = tuple[Outcome, str | None]


class _Rehearsed(Exception):
    """Undoes a transaction that was only to say what it would do."""

    def __init__(self, items: Sequence[ReportItem]) -> None:
        super().__init__()
        self.items = items


@dataclass(frozen=True, slots=True)
class _Import:
    """What every item needs."""

    connection: Connection
    actor: Actor
    secrets: dict[str, str]  # new ones, by client


async def run(database: Database, document: Document, actor: Actor, *, dry_run: bool) -> Report:
    """Import `document` and say what became of each item; raises `ChangeConflicts` when it takes too much."""
    people = document.users
    batches = [people[first : first + BATCH] for first in range(0, len(people), BATCH)] or [[]]
    items: list[ReportItem] = []
    for number, batch in enumerate(batches):
        try:
            found = await database.transact(_import_batch, document, batch, actor, dry_run)
        except _Rehearsed as rehearsed:
            found = rehearsed.items
        # The definitions are told once: the first time is the one that may change something.
        items += found if number == 0 else [item for item in found if item.kind == "user"]
    counts: Counter[Outcome] = Counter(dict.fromkeys(get_args(Outcome.__value__), 0))
    counts.update(item.outcome for item in items)
    return Report(dry_run=dry_run, counts=dict(counts), items=items)


def _import_batch(
    connection: Connection,
    document: Document,
    people: Sequence[UserItem],
    actor: Actor,
    dry_run: bool,  # noqa: FBT001 - transaction functions take no keywords
) -> Sequence[ReportItem]:
    items = list(_decide_all(_Import(connection, actor, {}), document, people))
    groups.keep_own_access(connection, actor)
    if dry_run:
        raise _Rehearsed([item.model_copy(update={"secret": None}) for item in items])
    changed = Counter(item.kind for item in items if item.outcome in ("created", "changed"))
    if changed:
        record(connection, actor, "configuration.imported", changed=dict(changed))
    return items


def _decide_all(into: _Import, document: Document, people: Sequence[UserItem]) -> Iterator[ReportItem]:
    for resource in document.resources:
        yield _decide(into, "resource", resource.id, _take_resource, resource)
    names = {role.name for role in roles.load(into.connection)}
    for role in _inner_first(document.roles, names):
        yield _decide(into, "role", role.name, _take_role, role)
    for group in document.groups:
        yield _decide(into, "group", group.name, _take_group, group)
    for client in document.clients:
        yield _decide(into, "client", client.id, _take_client, client)
    for person in people:
        yield _decide(into, "user", person.username, _take_user, person)


def _decide[T](into: _Import, kind: Any, name: str, take: Callable[[_Import, T], Decided], item: T) -> ReportItem:
    try:
        outcome, why = take(into, item)
    except (ChangeRejected, AccountRejected, ClientRejected) as error:
        outcome, why = "refused", f"{error.field}: {error.detail}"
    except NotThere as error:
        outcome, why = "refused", str(error)
    except ChangeConflicts as error:
        if error.reason in FATAL:
            raise
        outcome, why = "refused", str(error)
    return ReportItem(kind=kind, name=name, outcome=outcome, why=why, secret=into.secrets.get(name))


def _take_resource(into: _Import, item: ResourceItem) -> Decided:
    connection = into.connection
    known = next((resource for resource in resources.load(connection) if resource.id == item.id), None)
    if known is None:
        secret = opaque.new_secret()
        fields = item.model_dump(exclude={"secret_digest"})
        resource_servers.create(connection, Resource(**fields), secret, into.actor)
        if item.secret_digest is None:
            into.secrets[item.id] = secret
        else:
            _set_digest(connection, item.id, item.secret_digest)
        return "created", None
    if not known.built_in and known.identifier != item.identifier.rstrip("/"):
        raise ChangeRejected("identifier", "an identifier stays; make another resource")
    wanted: dict[str, Any] = item.model_dump(include={"name", "scopes", "permissions", "access_token_seconds"})
    changed = resource_servers.change(connection, item.id, wanted, into.actor) != known
    before = clients.find(connection, item.id)
    if item.secret_digest and resource_item(known, before, secrets=True).secret_digest != item.secret_digest:
        _set_digest(connection, item.id, item.secret_digest)
        changed = True
    return ("changed" if changed else "unchanged"), None


def _take_role(into: _Import, item: RoleItem) -> Decided:
    wanted: dict[str, Any] = {
        "description": item.description,
        "includes": frozenset(item.includes),
        "permissions": frozenset(item.permissions),
    }
    known = next((role for role in roles.load(into.connection) if role.name == item.name), None)
    if known is None:
        roles.create(into.connection, Role(name=item.name, **wanted), into.actor)
        return "created", None
    return _changed(known, roles.change(into.connection, item.name, wanted, into.actor))


def _take_group(into: _Import, item: GroupItem) -> Decided:
    wanted: dict[str, Any] = {"description": item.description, "roles": frozenset(item.roles)}
    try:
        known = groups.find(into.connection, item.name)
    except NotThere:
        groups.create(into.connection, Group(name=item.name, **wanted), into.actor)
        return "created", None
    return _changed(known, groups.change(into.connection, item.name, wanted, into.actor))


def _take_client(into: _Import, item: ClientItem) -> Decided:
    connection = into.connection
    known = clients.find(connection, item.id)
    if known is not None and not is_exported(known):
        raise ClientRejected("id", f"{item.id} is a client of this product or of a resource")
    roles.check_known(connection, item.roles)
    digest = bytes.fromhex(item.secret_digest) if item.secret_digest else known.secret_digest if known else None
    wanted = _client(into, item, digest if item.needs_secret else None)
    if known is None:
        clients.register(connection, wanted, into.actor)
        return "created", None
    if client_item(known, secrets=True) == client_item(wanted, secrets=True):
        return "unchanged", None
    kept = replace(wanted, created_at=known.created_at, details=known.details, disabled_at=known.disabled_at)
    clients.change(connection, replace(kept, registration_digest=known.registration_digest), into.actor)
    return "changed", None


def _client(into: _Import, item: ClientItem, digest: bytes | None) -> Client:
    if digest is None and item.needs_secret:
        into.secrets[item.id] = secret = opaque.new_secret()
        digest = opaque.digest(secret)
    fields = item.model_dump(exclude={"public", "secret_digest"})
    for name, kind in (("redirect_uris", tuple), ("post_logout_redirect_uris", tuple), ("grant_types", tuple)):
        fields[name] = kind(fields[name])
    fields |= {"scopes": frozenset(item.scopes), "roles": frozenset(item.roles)}
    return Client(**fields, secret_digest=digest, created_at=into.actor.at)


def _take_user(into: _Import, item: UserItem) -> Decided:
    connection = into.connection
    kept = item.password_hash if is_safe_hash(item.password_hash) else None
    account = accounts.find_by_username(connection, item.username)
    roles.check_known(connection, set(item.roles) - (account.roles if account is not None else set()))
    joined = [groups.find(connection, name) for name in item.groups]
    if account is None:
        account = _new_account(into, item, kept)
        _join(into, account, joined)
        if not item.enabled:
            accounts.disable(connection, account.id, into.actor)
        return "created", item.note or (MUST_RECOVER if kept is None else None)
    if account.id == into.actor.who and not item.enabled:
        raise ChangeConflicts("own-account", "the document disables yourself; let another administrator import it")
    before = user_item(account, secrets=True)
    _change_account(into, account, item, kept)
    _join(into, account, joined)
    after = user_item(accounts.existing(connection, account.id), secrets=True)
    return ("unchanged" if before == after else "changed"), None


def _new_account(into: _Import, item: UserItem, kept: str | None) -> Account:
    """Make the account, under the id it had, so that what other services keep about it stays true."""
    held = frozenset(item.roles) | {MEMBER}
    new = NewAccount(item.username, kept, item.email, held, item.name, email_verified=item.email_verified)
    free = item.id is not None and accounts.find(into.connection, item.id) is None
    return accounts.register(into.connection, new, into.actor, item.id if free else None)


def _change_account(into: _Import, account: Account, item: UserItem, kept: str | None) -> None:
    connection, actor = into.connection, into.actor
    account_changes.edit(connection, account.id, {"email": item.email, "name": item.name}, actor)
    accounts.set_roles(connection, account.id, frozenset(item.roles), actor)
    if kept is not None and kept != account.password_hash:
        accounts.set_password(connection, account.id, kept, actor)
    if item.enabled != account.enabled:
        (accounts.enable if item.enabled else accounts.disable)(connection, account.id, actor)


def _join(into: _Import, account: Account, wanted: Sequence[Group]) -> None:
    names = {group.name for group in wanted}
    for group in wanted:
        if group.name not in account.groups:
            groups.add_member(into.connection, group.id, account.id, into.actor)
    for name in sorted(account.groups - names):
        groups.remove_member(into.connection, groups.find(into.connection, name).id, account.id, into.actor)


def is_safe_hash(kept: str | None) -> bool:
    """Whether a hash is one that we can check at every sign-in: Argon2id, and of bounded cost."""
    if kept is None or not kept.startswith("$argon2id$"):
        return False
    try:
        asked = extract_parameters(kept)
    except (InvalidHashError, ValueError):
        return False
    return (
        asked.type is Type.ID
        and 8 <= asked.memory_cost <= MAX_MEMORY_KIB
        and 1 <= asked.time_cost <= MAX_TIME_COST
        and 1 <= asked.parallelism <= MAX_PARALLELISM
    )


def _set_digest(connection: Connection, client_id: str, digest: str) -> None:
    one = tables.clients.c.id == client_id
    connection.execute(update(tables.clients).where(one).values(secret_digest=bytes.fromhex(digest)))


def _inner_first(items: Sequence[RoleItem], known: set[str]) -> Iterator[RoleItem]:
    """Yield roles after those they include; what cannot be put in order is refused by its own check."""
    waiting, known = list(items), set(known)
    while waiting:
        ready = [item for item in waiting if set(item.includes) <= known] or waiting
        yield from ready
        known |= {item.name for item in ready}
        waiting = [item for item in waiting if item not in ready]


def _changed(before: object, after: object) -> Decided:
    return ("unchanged" if before == after else "changed"), None
