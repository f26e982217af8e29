"""What tokens are for: the services that accept them, the scopes that mean something there, and their permissions.

`Resources` is a snapshot of rows in memory, so that no token request asks the database; `definitions` keeps it current.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, select, update

from auth_svc import tables
from auth_svc.audit import Actor, record
from auth_svc.rights.roles import DEFINITIONS_TOPIC
from lib_auth.events import ResourceChanged, ResourceData
from lib_auth.jwks import ALGORITHM
from lib_events.database import Connection
from lib_events.event import Event, EventType

ADMIN_PATH = "/v1/admin"
AGENTS_PATH = "/mcp"
APP, ADMIN_API = "app", "admin"  # the ids of the built-in two
APP_DESCRIPTIONS = {
    "workflows:read": "See workflows and runs",
    "workflows:run": "Start workflows and act on your runs",
    "workflows:manage": "Manage everybody's runs, queues and schedules",
    "events:read": "Read events",
    "events:publish": "Publish events",
    "approvals:decide": "Approve and reject in your name",
}
ADMIN_DESCRIPTIONS = {"admin": "Administer users and clients"}
# Scopes about the person: they mean the same whatever the token is for.
OPENID_DESCRIPTIONS = {
    "openid": "Know who you are",
    "profile": "See your user name",
    "email": "See your e-mail address",
    "groups": "See the groups you are in",
    "offline_access": "Stay signed in until you sign it out",
}
OPENID = frozenset(OPENID_DESCRIPTIONS)
APP_SCOPES = frozenset(APP_DESCRIPTIONS)
ADMIN_SCOPES = frozenset(ADMIN_DESCRIPTIONS)
ALL_SCOPES = OPENID | APP_SCOPES | ADMIN_SCOPES

# What a person reads on the consent page.
DESCRIPTIONS = OPENID_DESCRIPTIONS | APP_DESCRIPTIONS | ADMIN_DESCRIPTIONS


class TargetInvalid(Exception):
    """The client asked for a resource it cannot have (RFC 8707 section 2: `invalid_target`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A service that accepts our access tokens."""

    id: str
    identifier: str  # the audience
    name: str
    scopes: Mapping[str, str] = field(default_factory=dict)
    permissions: Mapping[str, str] = field(default_factory=dict)
    access_token_seconds: int | None = None
    built_in: bool = False
    created_at: int = 0
    actors: frozenset[str] = frozenset()  # the clients that people may let act for them here (RFC 8693)
    signing_alg: str = ALGORITHM  # what its access tokens are signed with


class Resources:
    """The audiences of an installation: the built-in two and those an administrator has added."""

    def __init__(self, issuer: str, app: str) -> None:
        self.issuer = issuer
        self.app = app
        self.take(built_in_resources(issuer, app))

    @property
    def admin(self) -> str:
        """The audience of the admin API, the only one in which the scope `admin` exists."""
        return self.issuer + ADMIN_PATH

    def take(self, resources: Iterable[Resource]) -> None:
        """Replace what is known, at once for every request that comes after."""
        self._known = {resource.identifier: resource for resource in resources}
        self._scopes = {identifier: OPENID | resource.scopes.keys() for identifier, resource in self._known.items()}
        self.descriptions = dict(OPENID_DESCRIPTIONS)
        for resource in self._known.values():
            self.descriptions |= resource.scopes

    @property
    def for_agents(self) -> str:
        """What agents know the AppService by (RFC 9728 section 3.3): the URL that they call."""
        return self.app + AGENTS_PATH

    @property
    def identifiers(self) -> Sequence[str]:
        """Everything that may be asked for."""
        return (*self._known, self.for_agents)

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that means something somewhere."""
        return frozenset(self.descriptions)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._known

    def find(self, identifier: str) -> Resource | None:
        """Return the resource with that audience."""
        return self._known.get(identifier)

    def choose(self, requested: Sequence[str]) -> tuple[str, ...]:
        """Return the resources to authorise; none asked for means the AppService."""
        if not requested:
            return (self.app,)
        chosen = tuple(dict.fromkeys(self._meant_by(resource.rstrip("/")) for resource in requested))
        for resource in chosen:
            if resource not in self._known:
                raise TargetInvalid("the resource must be one of this installation")
        return chosen

    def _meant_by(self, identifier: str) -> str:
        """RFC 8707 section 2: what is asked for may be mapped to a more general URI, here the AppService's."""
        return self.app if identifier == self.for_agents else identifier

    def scopes_in(self, resource: str, scopes: frozenset[str]) -> frozenset[str]:
        """Return those of `scopes` that exist in `resource`."""
        return scopes & self._scopes.get(resource, frozenset())

    def unspoken(self, requested: Iterable[str], scopes: frozenset[str]) -> Sequence[str]:
        """Return the names of the resources of which no scope speaks: a role may be all that one asks of a token.

        Our own take a scope for whatever they do.
        """
        found = (self._known[identifier] for identifier in requested if identifier in self._known)
        return [each.name for each in found if not each.built_in and scopes.isdisjoint(each.scopes)]

    def signing_alg(self, resource: str) -> str:
        """Return what access tokens for `resource` are signed with."""
        known = self._known.get(resource)
        return known.signing_alg if known is not None else ALGORITHM

    def lifetime(self, resource: str, seconds: int) -> int:
        """Return how long an access token for `resource` lives where its client may have `seconds`."""
        known = self._known.get(resource)
        return min(seconds, known.access_token_seconds or seconds) if known is not None else seconds


def built_in_resources(issuer: str, app: str) -> tuple[Resource, Resource]:
    """Return the two audiences that every installation has."""
    return (
        Resource(id=APP, identifier=app, name="AppService", scopes=APP_DESCRIPTIONS, built_in=True),
        Resource(
            id=ADMIN_API,
            identifier=issuer + ADMIN_PATH,
            name="Administration",
            scopes=ADMIN_DESCRIPTIONS,
            built_in=True,
        ),
    )


def load(connection: Connection) -> list[Resource]:
    """Return every resource, the built-in ones first."""
    query = select(tables.resources).order_by(tables.resources.c.built_in.desc(), tables.resources.c.id)
    return [read_resource(row) for row in connection.execute(query)]


def known_scopes(connection: Connection) -> frozenset[str]:
    """Return every scope that means something somewhere, as the rows say now."""
    return ALL_SCOPES.union(*(resource.scopes for resource in load(connection)))


def read_resource(row: Row[Any]) -> Resource:
    """Make a resource of its row."""
    return Resource(
        id=row.id,
        identifier=row.identifier,
        name=row.name,
        scopes=json.loads(row.scopes),
        permissions=json.loads(row.permissions),
        access_token_seconds=row.access_token_seconds,
        built_in=row.built_in,
        created_at=row.created_at,
        actors=frozenset(json.loads(row.actors)),
        signing_alg=row.signing_alg,
    )


def forget_actor(connection: Connection, client_id: str, actor: Actor) -> None:
    """Let a client that goes act nowhere any more: another one may come to have its id."""
    table = tables.resources
    named = table.c.actors.contains(json.dumps(client_id), autoescape=True)
    for row in connection.execute(select(table).where(named).order_by(table.c.id).with_for_update()).all():
        resource = read_resource(row)
        changed = replace(resource, actors=resource.actors - {client_id})
        actors = json.dumps(sorted(changed.actors))
        connection.execute(update(table).where(table.c.id == resource.id).values(actors=actors))
        tell(connection, ResourceChanged, changed, actor)


def tell(connection: Connection, event_type: EventType[ResourceData], resource: Resource, actor: Actor) -> None:
    """Publish and write down what became of a resource."""
    payload = ResourceData(resource=resource.id, identifier=resource.identifier, by=actor.who)
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=resource.id))
    record(
        connection,
        actor,
        event_type.name.removeprefix("evs."),
        about=resource.id,
        identifier=resource.identifier,
        scopes=sorted(resource.scopes),
        permissions=sorted(resource.permissions),
        actors=sorted(resource.actors),
    )
    connection.notify(DEFINITIONS_TOPIC)
