"""Import: brings what a document says into the rows, item by item, each as its own command would; twice is as once.

Many small transactions do it, as `plan` orders them, because one that holds the database for thousands of people would
stop everybody else. A rehearsal is the same work, undone: what it reports is what happens.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

from sqlalchemy import select, update

from auth_svc import opaque, tables
from auth_svc.audit import Actor, record
from auth_svc.clients import clients
from auth_svc.clients.client import Client, ClientRejected
from auth_svc.clients.details import told
from auth_svc.people.accounts import AccountRejected
from auth_svc.people.decoys import IMPORTED_TOPIC
from auth_svc.rights import groups, resource_servers, resources, role_news, roles
from auth_svc.rights.changes import ChangeConflicts, ChangeRejected, NotThere
from auth_svc.rights.groups import Group
from auth_svc.rights.resources import Resource
from auth_svc.rights.roles import Role
from auth_svc.transfer.administering import administering
from auth_svc.transfer.document import (
    ClientItem,
    GroupItem,
    Outcome,
    Report,
    ReportItem,
    ResourceItem,
    RoleItem,
)
from auth_svc.transfer.exporting import client_item, is_exported, resource_item
from auth_svc.transfer.importing_people import take_user
from auth_svc.transfer.importing_upstreams import take_upstream
from auth_svc.transfer.intake import Decided, Intake
from auth_svc.transfer.plan import Batch, Piece, Step, batches
from auth_svc.transfer.reading import Reading
from auth_svc.upstreams.providers import UpstreamRejected
from lib_events.database import Connection
from lib_events.sealed import SealingKey

# These speak against the whole document, not against one item of it.
FATAL = frozenset(("own-account", "makes-administrators"))


# Lets a function happen in a transaction, with who wants it as its last argument, if they may.
type Commit = Callable[..., Awaitable[Sequence[ReportItem]]]


class _Rehearsed(Exception):
    """Undoes a transaction that was only to say what it would do."""

    def __init__(self, items: Sequence[ReportItem]) -> None:
        super().__init__()
        self.items = items


@dataclass(frozen=True, slots=True)
class _How:
    """What every transaction of an import is about."""

    reading: Reading
    issuer: str
    sealing_key: SealingKey = field(repr=False)
    dry_run: bool


async def run(commit: Commit, reading: Reading, *, issuer: str, sealing_key: SealingKey, dry_run: bool) -> Report:
    """Import what was read and say what became of each item; raises `ChangeConflicts` when it takes too much.

    `issuer` is the one that imports.
    """
    how, items = _How(reading, issuer, sealing_key, dry_run), list(reading.refused)
    for batch in batches(reading.document):
        try:
            items += await commit(_import_batch, how, batch)
        except _Rehearsed as rehearsed:
            items += rehearsed.items
    counts: Counter[Outcome] = Counter(dict.fromkeys(get_args(Outcome.__value__), 0))
    counts.update(item.outcome for item in items)
    return Report(dry_run=dry_run, counts=dict(counts), items=items, left_out=reading.left_out)


def _import_batch(connection: Connection, how: _How, batch: Batch, actor: Actor) -> Sequence[ReportItem]:
    _wait_for_others(connection)
    into = Intake(connection, actor, how.sealing_key, how.issuer, how.reading.is_foreign, {})
    if how.dry_run:
        for piece in batch.needs:
            _decide(into, piece)
    items = list(_decide_all(into, batch.pieces))
    groups.keep_own_access(connection, actor)
    if how.dry_run:
        raise _Rehearsed([item.model_copy(update={"secret": None}) for item in items])
    changed = Counter(item.kind for item in items if item.outcome in ("created", "changed"))
    if changed:
        record(connection, actor, "configuration.imported", changed=dict(changed))
        connection.notify(IMPORTED_TOPIC)
    return items


def _wait_for_others(connection: Connection) -> None:
    """Let no other import happen meanwhile: of one document, both would make the same, and wait for one another."""
    built_in = select(tables.resources.c.id).where(tables.resources.c.built_in).order_by(tables.resources.c.id)
    connection.execute(built_in.with_for_update()).all()


def _decide_all(into: Intake, pieces: Sequence[Piece]) -> Iterator[ReportItem]:
    checked = into.is_foreign and any(piece.step != "user" for piece in pieces)
    before = administering(into.connection) if checked else frozenset[str]()
    for piece in pieces:
        if piece.step != "actors" or _lacks_actors(into, piece.item):
            yield _decide(into, piece)
    if checked and (more := sorted(administering(into.connection) - before)):
        detail = f"the import would make an administrator of whoever has {', '.join(more)}; rename it in the document"
        raise ChangeConflicts("makes-administrators", detail)


def _decide(into: Intake, piece: Piece) -> ReportItem:
    try:
        outcome, why = TAKE[piece.step](into, piece.item)
    except (ChangeRejected, AccountRejected, ClientRejected, UpstreamRejected) as error:
        outcome, why = "refused", f"{error.field}: {error.detail}"
    except NotThere as error:
        outcome, why = "refused", str(error)
    except ChangeConflicts as error:
        if error.reason in FATAL:
            raise
        outcome, why = "refused", str(error)
    kind = "resource" if piece.step == "actors" else piece.step
    return ReportItem(kind=kind, name=piece.name, outcome=outcome, why=why, secret=into.secrets.get(piece.name))


def _take_resource(into: Intake, item: ResourceItem) -> Decided:
    connection = into.connection
    known = next((resource for resource in resources.load(connection) if resource.id == item.id), None)
    if known is None:
        secret = opaque.new_secret()
        fields = item.model_dump(exclude={"secret_digest"}) | {"actors": _actors_there(into, item)}
        resource_servers.create(connection, Resource(**fields), secret, into.actor)
        if item.secret_digest is None:
            into.secrets[item.id] = secret
        else:
            _set_digest(connection, item.id, item.secret_digest)
        return "created", None
    if not known.built_in and known.identifier != item.identifier.rstrip("/"):
        raise ChangeRejected("identifier", "an identifier stays; make another resource")
    wanted: dict[str, Any] = item.model_dump(include={"name", "scopes", "permissions", "access_token_seconds"})
    if "actors" in item.model_fields_set:  # documents of before they were known say nothing of them
        wanted["actors"] = _actors_there(into, item)
    if "signing_alg" in item.model_fields_set:
        wanted["signing_alg"] = item.signing_alg
    changed = resource_servers.change(connection, item.id, wanted, into.actor) != known
    before = clients.find(connection, item.id)
    if item.secret_digest and resource_item(known, before, secrets=True).secret_digest != item.secret_digest:
        _set_digest(connection, item.id, item.secret_digest)
        changed = True
    return ("changed" if changed else "unchanged"), None


def _actors_there(into: Intake, item: ResourceItem) -> frozenset[str]:
    """Those of a resource's actors that are clients here already."""
    return frozenset(actor for actor in item.actors if clients.find(into.connection, actor) is not None)


def _lacks_actors(into: Intake, item: ResourceItem) -> bool:
    known = next((resource for resource in resources.load(into.connection) if resource.id == item.id), None)
    return known is not None and "actors" in item.model_fields_set and known.actors != frozenset(item.actors)


def _take_actors(into: Intake, item: ResourceItem) -> Decided:
    resource_servers.change(into.connection, item.id, {"actors": frozenset(item.actors)}, into.actor)
    return "changed", None


def _take_role(into: Intake, item: RoleItem) -> Decided:
    wanted: dict[str, Any] = {
        "description": item.description,
        "includes": frozenset(item.includes),
        "permissions": frozenset(item.permissions),
    }
    known = next((role for role in roles.load(into.connection) if role.name == item.name), None)
    if known is None:
        roles.create(into.connection, Role(name=item.name, **wanted), into.actor)
        return "created", None
    wanted["includes"] = into.roles(item.includes, known.includes)
    told = {name: value for name, value in wanted.items() if into.is_told(item, name)}
    return _changed(known, role_news.change_role(into.connection, item.name, told, into.actor))


def _take_group(into: Intake, item: GroupItem) -> Decided:
    wanted: dict[str, Any] = {"description": item.description, "roles": frozenset(item.roles)}
    try:
        known = groups.find(into.connection, item.name)
    except NotThere:
        groups.create(into.connection, Group(name=item.name, **wanted), into.actor)
        return "created", None
    wanted["roles"] = into.roles(item.roles, known.roles)
    told = {name: value for name, value in wanted.items() if into.is_told(item, name)}
    return _changed(known, groups.change(into.connection, item.name, told, into.actor))


def _take_client(into: Intake, item: ClientItem) -> Decided:
    connection = into.connection
    known = clients.find(connection, item.id)
    if known is not None and not is_exported(known):
        raise ClientRejected("id", f"{item.id} is a client of this product or of a resource")
    roles.check_known(connection, item.roles)
    if known is not None:
        kept = into.roles(item.roles, known.roles) if into.is_told(item, "roles") else known.roles
        item = item.model_copy(update={"roles": sorted(kept)})
    digest = bytes.fromhex(item.secret_digest) if item.secret_digest else None
    if known is not None and known.secret_digest is not None and (digest is None or into.is_foreign):
        digest = known.secret_digest  # it may have been changed here since
    wanted = _client(into, item, digest if item.needs_secret else None)
    if known is not None and item.details is None:  # documents of before they were known say nothing of them
        wanted = replace(wanted, details=known.details)
    if known is None:
        clients.register(connection, wanted, into.actor)
        return "created", item.note
    if client_item(known, secrets=True) == client_item(wanted, secrets=True):
        return "unchanged", item.note
    clients.change(connection, item.id, partial(_brought_up_to_date, wanted), into.actor)
    return "changed", item.note


def _brought_up_to_date(wanted: Client, known: Client) -> Client:
    """A client of a document with what no document says of it."""
    return replace(
        wanted,
        created_at=known.created_at,
        disabled_at=known.disabled_at,
        registration_digest=known.registration_digest,
    )


def _client(into: Intake, item: ClientItem, digest: bytes | None) -> Client:
    if digest is None and item.needs_secret:
        into.secrets[item.id] = secret = opaque.new_secret()
        digest = opaque.digest(secret)
    fields = item.model_dump(exclude={"public", "secret_digest", "note"})
    for name, kind in (("redirect_uris", tuple), ("post_logout_redirect_uris", tuple), ("grant_types", tuple)):
        fields[name] = kind(fields[name])
    fields |= {"scopes": frozenset(item.scopes), "roles": frozenset(item.roles)}
    fields["details"] = told(item.details.model_dump()) if item.details is not None else {}
    return Client(**fields, secret_digest=digest, created_at=into.actor.at)


def _set_digest(connection: Connection, client_id: str, digest: str) -> None:
    one = tables.clients.c.id == client_id
    connection.execute(update(tables.clients).where(one).values(secret_digest=bytes.fromhex(digest)))


def _changed(before: object, after: object) -> Decided:
    return ("unchanged" if before == after else "changed"), None


TAKE: Mapping[Step, Callable[[Intake, Any], Decided]] = {
    "resource": _take_resource,
    "role": _take_role,
    "group": _take_group,
    "client": _take_client,
    "actors": _take_actors,
    "upstream": take_upstream,
    "user": take_user,
}
