"""The clients' rows: registered, changed, given a new secret, disabled, removed; each change tells."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select, update

from auth_svc import listed, opaque
from auth_svc.audit import Actor, record
from auth_svc.clients.client import Client, ClientRejected, check, receiver_of
from auth_svc.clients.keys import KeysRejected, read_key_set
from auth_svc.people import consents
from auth_svc.protocol import families
from auth_svc.rights import roles
from auth_svc.rights.refused_tokens import refuse_tokens_of_clients
from auth_svc.rights.resources import forget_actor, known_scopes
from auth_svc.tables import clients, device_codes, logout_deliveries, pushed_requests, users
from lib_auth.events import (
    ClientChanged,
    ClientChangedData,
    ClientDisabled,
    ClientEnabled,
    ClientRegistered,
    ClientRemoved,
    ClientSecretRotated,
)
from lib_events.database import Connection
from lib_events.event import Event, EventType
from lib_events.prepared import Prepared

LISTS = ("redirect_uris", "post_logout_redirect_uris", "grant_types", "scopes", "roles")
SETS = ("scopes", "roles")  # whose order means nothing


class ClientUnknown(Exception):
    """There is no such client."""

    def __init__(self, client_id: str) -> None:
        super().__init__(f"there is no client {client_id!r}; list them with: evs admin client list")


def find(connection: Connection, client_id: str) -> Client | None:
    """Return the client with that id."""
    client: Client | None = connection.row(BY_ID, id=client_id)
    return client


def is_person(connection: Connection, client_id: str) -> bool:
    """Whether a person has, or had, that id: tokens would call both by one name (RFC 9068 section 5)."""
    return connection.scalar(select(users.c.id).where(users.c.id == client_id)) is not None


def page(connection: Connection, after: str | None, limit: int) -> Sequence[Client]:
    """Return up to `limit` clients in order of id."""
    query = select(clients).order_by(clients.c.id).limit(limit)
    if after is not None:
        query = query.where(clients.c.id > after)
    return [read_client(row) for row in connection.execute(query)]


def lock(connection: Connection, client_id: str) -> Client:
    """Return the client as it is now, and stays until this transaction ends; raises `ClientUnknown`."""
    query = select(clients).where(clients.c.id == client_id).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise ClientUnknown(client_id)
    return read_client(row)


def register(connection: Connection, client: Client, actor: Actor) -> Client:
    """Make a client; raises `ClientRejected`."""
    check(client, scopes=known_scopes(connection))
    _check_keys(client)
    if find(connection, client.id) is not None:
        raise ClientRejected("id", f"there is a client {client.id!r} already; choose another id")
    if is_person(connection, client.id):
        raise ClientRejected("id", f"{client.id!r} is the id of a person; choose another id")
    _insert(connection, client, actor.at)
    record(connection, actor, "client.registered", about=client.id, scopes=sorted(client.scopes), origin=client.origin)
    _tell(connection, ClientRegistered, client, actor)
    return client


def change(connection: Connection, client_id: str, alter: Callable[[Client], Client], actor: Actor) -> Client:
    """Bring a client to what `alter` makes of it; raises `ClientRejected` and `ClientUnknown`.

    `alter` gets the client as it is once nobody else can change it: what was read before may be undone by now, and
    writing that back would let in again whom somebody has just disabled.
    """
    before = lock(connection, client_id)
    wanted = alter(before)
    check(wanted, scopes=known_scopes(connection))
    if wanted.jwks != before.jwks:
        _check_keys(wanted)
    _store(connection, wanted)
    changed = sorted(name for name, value in _columns(wanted).items() if _columns(before)[name] != value)
    if not changed:
        return wanted
    record(connection, actor, "client.changed", about=wanted.id, fields=changed)
    if not (wanted.scopes >= before.scopes and wanted.roles >= before.roles):
        refuse_tokens_of_clients(connection, [wanted.id], actor.at)  # what was taken away must not live on in a token
    if before.origin == "registered" and not _receivers(wanted) <= _receivers(before):
        consents.forget_client(connection, wanted.id)  # people allowed it to those that they were shown
    _tell(connection, ClientChanged, wanted, actor)
    return wanted


def rotate_secret(connection: Connection, client_id: str, secret: str, actor: Actor) -> Client:
    """Give a client with a secret a new one; the old one is worth nothing at once."""
    client = lock(connection, client_id)
    if client.secret_digest is None:
        raise ClientRejected("id", f"the client {client_id!r} has no secret to rotate")
    client = replace(client, secret_digest=opaque.digest(secret))
    _store(connection, client)
    record(connection, actor, "client.secret-rotated", about=client_id)
    _tell(connection, ClientSecretRotated, client, actor)
    return client


def disable(connection: Connection, client_id: str, actor: Actor) -> Client:
    """Stop a client from getting tokens and refuse those it holds."""
    client = lock(connection, client_id)
    if client.disabled_at is None:
        client = replace(client, disabled_at=actor.at)
        _store(connection, client)
        refuse_tokens_of_clients(connection, [client_id], actor.at)
        record(connection, actor, "client.disabled", about=client_id)
        _tell(connection, ClientDisabled, client, actor)
    return client


def enable(connection: Connection, client_id: str, actor: Actor) -> Client:
    """Let a disabled client go on."""
    client = lock(connection, client_id)
    if client.disabled_at is not None:
        client = replace(client, disabled_at=None)
        _store(connection, client)
        record(connection, actor, "client.enabled", about=client_id)
        _tell(connection, ClientEnabled, client, actor)
    return client


def remove(connection: Connection, client_id: str, actor: Actor) -> None:
    """Remove a client and everything that people allowed it; its tokens are refused."""
    client = lock(connection, client_id)
    families.revoke_all_of_client(connection, client_id, "client removed", actor.at)
    refuse_tokens_of_clients(connection, [client_id], actor.at)
    consents.forget_client(connection, client_id)
    forget_actor(connection, client_id, actor)
    connection.execute(delete(device_codes).where(device_codes.c.client_id == client_id))
    families.remove_all_of_client(connection, client_id)
    for table in (pushed_requests, logout_deliveries):
        connection.execute(delete(table).where(table.c.client_id == client_id))
    connection.execute(delete(clients).where(clients.c.id == client_id))
    record(connection, actor, "client.removed", about=client_id)
    _tell(connection, ClientRemoved, client, actor)


def put(connection: Connection, client: Client) -> None:
    """Bring one of our own clients to what this release and its settings say."""
    known = find(connection, client.id)
    if known is None:
        _insert(connection, client, client.created_at)
    else:
        _store(connection, replace(client, created_at=known.created_at))


def stays(connection: Connection, client_id: str) -> bool:
    """Whether there is such a client, which nobody removes while this transaction lasts.

    Rows that refer to one take the same lock; but where the client has just gone they are an error.
    """
    return connection.row(STAYING, id=client_id) is not None


def read_client(row: Iterable[Any]) -> Client:
    """Make a client of its row."""
    values = dict(zip(clients.columns.keys(), row, strict=True))
    values |= {name: listed.from_text(values[name]) for name in LISTS}
    values |= {name: frozenset(values[name]) for name in SETS}
    return Client(**(values | {"details": json.loads(values["details"])}))


# Of the same few rows the same few clients are made, request after request.
BY_ID = Prepared(select(clients).where(clients.c.id == bindparam("id")), make=read_client, remembered=1024)

STAYING = Prepared(
    select(clients.c.id).where(clients.c.id == bindparam("id")).with_for_update(read=True, key_share=True)
)


def _insert(connection: Connection, client: Client, now: int) -> None:
    """Of a client that had the same id and was removed, even just now, no token lives on."""
    connection.execute(insert(clients).values(**_columns(client), tokens_valid_after=now))


def _columns(client: Client) -> dict[str, Any]:
    values = {column.name: getattr(client, column.name) for column in clients.columns}
    del values["tokens_valid_after"]  # only `refuse_tokens_of_clients` moves it
    del values["granted_at"]  # only `UseClient` does
    values |= {name: listed.to_text(values[name]) for name in LISTS}
    values |= {name: listed.to_text(sorted(getattr(client, name))) for name in SETS}
    return values | {"details": json.dumps(dict(client.details))}


def _store(connection: Connection, client: Client) -> None:
    columns = _columns(client)
    del columns["id"]
    connection.execute(update(clients).where(clients.c.id == client.id).values(columns))


def _receivers(client: Client) -> frozenset[str]:
    return frozenset(map(receiver_of, client.redirect_uris))


def _check_keys(client: Client) -> None:
    """Nobody could show, or use, what is no set of keys."""
    if client.jwks is not None:
        try:
            read_key_set(client.jwks)
        except KeysRejected as error:
            raise ClientRejected("jwks", str(error)) from error


def tell_roles(connection: Connection, names: Sequence[str], actor: Actor) -> None:
    """Publish what the clients that hold one of these roles may do now; there are few."""
    held = or_(*(roles.says(clients.c.roles, name) for name in names))
    for row in connection.execute(select(clients).where(held).order_by(clients.c.id).with_for_update()).all():
        _tell(connection, ClientChanged, read_client(row), actor)


def _tell(connection: Connection, event_type: EventType[ClientChangedData], client: Client, actor: Actor) -> None:
    held = sorted(roles.staying(connection).held(client.roles)) if client.roles else []
    payload = ClientChangedData(client=client.id, name=client.name, origin=client.origin, by=actor.who, roles=held)
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=client.id))
