"""Resource servers as rows: each has an audience, scopes, permissions, and a client of its own to ask about tokens."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, insert, select, update

from auth_svc import opaque
from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.clients.client import CREDENTIALS, EXCHANGE, Client
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS
from auth_svc.rights import roles
from auth_svc.rights.changes import ChangeConflicts, ChangeRejected, NotThere
from auth_svc.rights.resources import OPENID, Resource, built_in_resources, load, read_resource, tell
from auth_svc.tables import resources
from lib_auth.events import ResourceChanged, ResourceCreated, ResourceDeleted, ResourceSecretRotated
from lib_auth.jwks import ALGORITHMS
from lib_events.database import Connection

ID = re.compile(r"[a-z0-9][a-z0-9._-]{1,63}")
# RFC 6749 section 3.3, and nothing that a list of them in a text could be mistaken for.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")
MAX_NAMES = 200
# It asks about tokens, and acts for whoever called it where another resource names it among its actors.
GRANTS = (CREDENTIALS, EXCHANGE)


def find(connection: Connection, resource_id: str) -> Resource:
    """Return a resource by id or audience; raises `NotThere`."""
    either = (resources.c.id == resource_id) | (resources.c.identifier == resource_id)
    row = connection.execute(select(resources).where(either).with_for_update()).one_or_none()
    if row is None:
        raise NotThere("resource", resource_id)
    return read_resource(row)


def create(connection: Connection, resource: Resource, secret: str, actor: Actor) -> Resource:
    """Make a resource and its client, which has `secret`; raises `ChangeRejected`."""
    made = replace(resource, identifier=resource.identifier.rstrip("/"), created_at=actor.at)
    _check(connection, made)
    if not ID.fullmatch(made.id):
        raise ChangeRejected("id", f"An id has lower-case letters, digits and ._-, got {made.id!r}.")
    if clients.is_person(connection, made.id):
        raise ChangeRejected("id", f"{made.id!r} is the id of a person; choose another id.")
    if clients.find(connection, made.id) is not None:
        raise ChangeRejected("id", f"There is a client {made.id!r} already; choose another id.")
    _check_identifier(connection, made)
    connection.execute(insert(resources).values(_columns(made) | {"id": made.id, "identifier": made.identifier}))
    clients.put(connection, _client_of(made, secret))
    tell(connection, ResourceCreated, made, actor)
    return made


def change(connection: Connection, resource_id: str, changes: Mapping[str, Any], actor: Actor) -> Resource:
    """Set fields of a resource; its audience stays. Raises `ChangeRejected`, `ChangeConflicts`, `NotThere`."""
    before = find(connection, resource_id)
    changed = replace(before, **changes)
    if changed == before:
        return before
    _check(connection, changed)
    for own in built_in_resources("", ""):
        if before.built_in and own.id == before.id and not own.scopes.keys() <= changed.scopes.keys():
            raise ChangeConflicts("built-in", f"the scopes {', '.join(own.scopes)} are built in and stay")
    _check_unused(connection, before, before.permissions.keys() - changed.permissions.keys())
    connection.execute(update(resources).where(resources.c.id == before.id).values(_columns(changed)))
    tell(connection, ResourceChanged, changed, actor)
    return changed


def remove(connection: Connection, resource_id: str, actor: Actor) -> None:
    """Delete a resource and its client; nobody gets a token for it any more."""
    # Where its client acts is taken from those, too: of two that act at each other and go at once, one waits here.
    connection.execute(select(resources.c.id).order_by(resources.c.id).with_for_update())
    resource = find(connection, resource_id)
    if resource.built_in:
        raise ChangeConflicts("built-in", f"the resource {resource.id} is built in and stays")
    _check_unused(connection, resource, resource.permissions.keys())
    connection.execute(delete(resources).where(resources.c.id == resource.id))
    clients.remove(connection, resource.id, actor)  # with what people let it do for them elsewhere
    tell(connection, ResourceDeleted, resource, actor)


def set_secret(connection: Connection, resource_id: str, secret: str, actor: Actor) -> Resource:
    """Give the resource's client another secret; the old one ends at once."""
    resource = find(connection, resource_id)
    if resource.built_in:
        raise ChangeConflicts("built-in", f"the client of {resource.id} gets its secret from the data folder")
    clients.put(connection, _client_of(resource, secret))
    tell(connection, ResourceSecretRotated, resource, actor)
    return resource


def put_built_in(connection: Connection, issuer: str, app: str, now: int) -> None:
    """Bring the built-in two to what this release and the settings say; what was added to them stays."""
    for own in built_in_resources(issuer, app):
        row = connection.execute(select(resources).where(resources.c.id == own.id)).one_or_none()
        if row is None:
            values = _columns(replace(own, created_at=now)) | {"id": own.id, "identifier": own.identifier}
            connection.execute(insert(resources).values(values))
            continue
        kept = read_resource(row)
        scopes = dict(own.scopes) | dict(kept.scopes)
        if (kept.identifier, kept.scopes) != (own.identifier, scopes):
            values = {"identifier": own.identifier, "scopes": json.dumps(scopes)}
            connection.execute(update(resources).where(resources.c.id == own.id).values(values))


def put_clients(connection: Connection) -> None:
    """Bring the clients of all resources that somebody has made to what they may do in this release."""
    for resource in load(connection):
        client = None if resource.built_in else clients.find(connection, resource.id)
        if client is not None and client.grant_types != GRANTS:
            clients.put(connection, replace(client, grant_types=GRANTS))


def _check_unused(connection: Connection, resource: Resource, permissions: Any) -> None:
    for role in roles.load(connection):
        if used := sorted(role.permissions & frozenset(permissions)):
            text = f"the role {role.name} carries {used[0]} of {resource.id}; take it from the role first"
            raise ChangeConflicts("permission-in-use", text)


def _check(connection: Connection, resource: Resource) -> None:
    """Names of scopes and permissions mean one thing in an installation: people and roles name nothing else."""
    others = [other for other in load(connection) if other.id != resource.id]
    for field, taken in (
        ("scopes", OPENID.union(*(other.scopes for other in others))),
        ("permissions", frozenset().union(*(other.permissions for other in others))),
    ):
        names: Mapping[str, str] = getattr(resource, field)
        if wrong := [name for name in names if not NAME.fullmatch(name)]:
            raise ChangeRejected(field, f"A name has letters, digits and ._:/-, got {wrong[0]!r}.")
        if clash := sorted(names.keys() & taken):
            raise ChangeRejected(field, f"{clash[0]!r} means something elsewhere already; choose another name.")
        if len(names) > MAX_NAMES:
            raise ChangeRejected(field, f"A resource has at most {MAX_NAMES}, got {len(names)}.")
    seconds = resource.access_token_seconds
    if seconds is not None and not 1 <= seconds <= LONGEST_ACCESS_SECONDS:
        raise ChangeRejected("access_token_seconds", f"It must be 1 to {LONGEST_ACCESS_SECONDS}.")
    if resource.signing_alg not in ALGORITHMS:
        raise ChangeRejected("signing_alg", f"It must be one of {', '.join(ALGORITHMS)}, got {resource.signing_alg!r}.")
    _check_actors(connection, resource)


def _check_actors(connection: Connection, resource: Resource) -> None:
    if resource.built_in and resource.actors:
        raise ChangeRejected("actors", "What acts for people at a built-in resource is built in, too.")
    for actor in sorted(resource.actors):
        client = clients.find(connection, actor)
        if client is None or not client.check_grant_type(EXCHANGE):
            raise ChangeRejected("actors", f"An actor is a client that may exchange tokens, got {actor!r}.")


def _check_identifier(connection: Connection, resource: Resource) -> None:
    """RFC 8707 section 2: an absolute URI without a fragment."""
    identifier = resource.identifier
    if not URI.fullmatch(identifier) or not _is_uri(identifier):
        raise ChangeRejected("identifier", "The identifier must be an absolute URI without a fragment.")
    if any(identifier == other.identifier for other in load(connection)):
        raise ChangeRejected("identifier", "There is a resource with that identifier already.")


def _is_uri(identifier: str) -> bool:
    try:
        parts = urlsplit(identifier)
    except ValueError:
        return False
    return bool(parts.netloc or parts.path)


def _client_of(resource: Resource, secret: str) -> Client:
    return Client(
        id=resource.id,
        name=resource.name,
        secret_digest=opaque.digest(secret),
        grant_types=GRANTS,
        resource=resource.identifier,
        created_at=resource.created_at,
    )


def _columns(resource: Resource) -> dict[str, Any]:
    return {
        "name": resource.name,
        "scopes": json.dumps(dict(resource.scopes)),
        "permissions": json.dumps(dict(resource.permissions)),
        "access_token_seconds": resource.access_token_seconds,
        "built_in": resource.built_in,
        "created_at": resource.created_at,
        "actors": json.dumps(sorted(resource.actors)),
        "signing_alg": resource.signing_alg,
    }
