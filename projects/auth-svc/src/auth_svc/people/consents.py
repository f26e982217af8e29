"""Consents: what a person allowed a client before, so that they are not asked for the same again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from auth_svc import listed
from auth_svc.audit import Actor, record
from auth_svc.clients.client import Client
from auth_svc.tables import consents
from lib_auth.events import GrantData, GrantGiven
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.prepared import Prepared

AWAY: Final = "offline_access"  # OpenID Connect Core section 11: also while the person is not there
OF_BOTH = Prepared(
    select(consents).where((consents.c.user_id == bindparam("user")) & (consents.c.client_id == bindparam("client")))
)


@dataclass(frozen=True, slots=True)
class Consent:
    """What was allowed."""

    scopes: frozenset[str]
    resources: frozenset[str]

    def covers(self, scopes: frozenset[str], resources: tuple[str, ...]) -> bool:
        """Whether all of this was allowed before."""
        return scopes <= self.scopes and set(resources) <= self.resources

    def covers_away(self, scopes: frozenset[str], resources: tuple[str, ...]) -> bool:
        """Whether it was allowed for while the person is away, too."""
        return self.covers(scopes | {AWAY}, resources)


def find(connection: Connection, user_id: str, client_id: str) -> Consent | None:
    """Return what the person allowed the client."""
    row = connection.row(OF_BOTH, user=user_id, client=client_id)
    return Consent(frozenset(row.scope.split()), frozenset(listed.from_text(row.resources))) if row else None


def keep(connection: Connection, user_id: str, client_id: str) -> Consent | None:
    """The same, and it is not withdrawn while this transaction lasts: who withdraws it then sees what came of it."""
    mine = (consents.c.user_id == user_id) & (consents.c.client_id == client_id)
    row = connection.execute(select(consents).where(mine).with_for_update(read=True)).one_or_none()
    return Consent(frozenset(row.scope.split()), frozenset(listed.from_text(row.resources))) if row else None


def give(connection: Connection, user_id: str, client: Client, consent: Consent, actor: Actor) -> None:
    """A person allows a client something: kept where they are not to be asked again, and told in any case."""
    if client.consent == "once":
        remember(connection, user_id, client.id, consent, actor.at)
    tell(connection, user_id, client.id, consent.scopes, actor)


def tell(connection: Connection, user_id: str, client_id: str, scopes: frozenset[str], actor: Actor) -> None:
    """Publish and record what a person allows a client."""
    payload = GrantData(user=user_id, client=client_id, scopes=sorted(scopes))
    connection.publish(Event.of(GrantGiven, payload, source=connection.source, subject=user_id))
    record(connection, actor, "grant.given", about=user_id, client=client_id, scope=listed.scope_text(scopes))


def of_user(connection: Connection, user_id: str) -> Sequence[tuple[str, Consent]]:
    """Return what a person allowed, by client id."""
    query = select(consents).where(consents.c.user_id == user_id).order_by(consents.c.client_id)
    return [
        (row.client_id, Consent(frozenset(row.scope.split()), frozenset(listed.from_text(row.resources))))
        for row in connection.execute(query)
    ]


def remember(connection: Connection, user_id: str, client_id: str, consent: Consent, now: int) -> None:
    """Keep what the person allows, together with what they allowed before."""
    before = find(connection, user_id, client_id) or Consent(frozenset(), frozenset())
    mine = (consents.c.user_id == user_id) & (consents.c.client_id == client_id)
    connection.execute(delete(consents).where(mine))
    connection.execute(
        insert(consents).values(
            user_id=user_id,
            client_id=client_id,
            scope=listed.scope_text(before.scopes | consent.scopes),
            resources=listed.to_text(sorted(before.resources | consent.resources)),
            granted_at=now,
        )
    )


def forget_client(connection: Connection, client_id: str) -> None:
    """Forget what anybody allowed a client."""
    connection.execute(delete(consents).where(consents.c.client_id == client_id))
