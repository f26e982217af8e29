"""Consents: what a person allowed a client before, so that they are not asked for the same again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, delete, insert, select

from auth_svc import listed
from auth_svc.audit import Actor, record
from auth_svc.clients.client import Client
from auth_svc.tables import consents
from lib_auth.events import GrantData, GrantGiven, GrantRevoked
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

    scopes: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    away: frozenset[str] = frozenset()  # those of the scopes that were allowed together with `AWAY`

    def covers(self, scopes: frozenset[str], resources: tuple[str, ...]) -> bool:
        """Whether all of this was allowed before: with `AWAY`, only what was allowed with it."""
        allowed = self.away if AWAY in scopes else self.scopes
        return scopes <= allowed and set(resources) <= self.resources

    def joined(self, given: "Consent") -> "Consent":
        """Return this with what is allowed now."""
        away = given.scopes if AWAY in given.scopes else frozenset[str]()
        return Consent(self.scopes | given.scopes, self.resources | given.resources, self.away | away)

    def covers_away(self, scopes: frozenset[str], resources: tuple[str, ...]) -> bool:
        """Whether it was allowed for while the person is away, too."""
        return self.covers(scopes | {AWAY}, resources)


def find(connection: Connection, user_id: str, client_id: str) -> Consent | None:
    """Return what the person allowed the client."""
    return _consent(connection.row(OF_BOTH, user=user_id, client=client_id))


def keep(connection: Connection, user_id: str, client_id: str) -> Consent | None:
    """The same, and it is not withdrawn while this transaction lasts: who withdraws it then sees what came of it."""
    mine = (consents.c.user_id == user_id) & (consents.c.client_id == client_id)
    return _consent(connection.execute(select(consents).where(mine).with_for_update(read=True)).one_or_none())


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
    found = [(row.client_id, _consent(row)) for row in connection.execute(query)]
    return [(client_id, consent) for client_id, consent in found if consent is not None]


def remember(connection: Connection, user_id: str, client_id: str, consent: Consent, now: int) -> None:
    """Keep what the person allows, together with what they allowed before."""
    kept = (find(connection, user_id, client_id) or Consent()).joined(consent)
    mine = (consents.c.user_id == user_id) & (consents.c.client_id == client_id)
    connection.execute(delete(consents).where(mine))
    connection.execute(
        insert(consents).values(
            user_id=user_id,
            client_id=client_id,
            scope=listed.scope_text(kept.scopes),
            resources=listed.to_text(sorted(kept.resources)),
            granted_at=now,
            away=listed.scope_text(kept.away),
        )
    )


def take_back_all(connection: Connection, user_id: str, actor: Actor) -> None:
    """Forget whatever a person allowed, and tell: it may have been somebody else who did."""
    for client_id, consent in of_user(connection, user_id):
        scopes = sorted(consent.scopes)
        payload = GrantData(user=user_id, client=client_id, scopes=scopes)
        connection.publish(Event.of(GrantRevoked, payload, source=connection.source, subject=user_id))
        record(connection, actor, "grant.revoked", about=user_id, client=client_id, scope=listed.scope_text(scopes))
    connection.execute(delete(consents).where(consents.c.user_id == user_id))


def forget_client(connection: Connection, client_id: str) -> None:
    """Forget what anybody allowed a client."""
    connection.execute(delete(consents).where(consents.c.client_id == client_id))


def _consent(row: Any) -> Consent | None:
    if row is None:
        return None
    resources = frozenset(listed.from_text(row.resources))
    return Consent(frozenset(row.scope.split()), resources, frozenset(row.away.split()))
