"""The programs a person lets act for them: what each may do, since when, and the end of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, func, or_, select

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.listed import scope_text
from auth_svc.protocol import families
from auth_svc.tables import clients, consents, refresh_tokens, sessions
from auth_svc.tables import families as family_table
from lib_auth.events import GrantData, GrantRevoked
from lib_events.database import Connection
from lib_events.event import Event


@dataclass(frozen=True, slots=True)
class ConnectedApp:
    """A client with a consent, or with tokens that live."""

    client_id: str
    name: str
    scopes: frozenset[str]
    since: int
    last_used_at: int | None = None

    def joined(self, other: "ConnectedApp") -> "ConnectedApp":
        """Both as one."""
        used = [at for at in (self.last_used_at, other.last_used_at) if at is not None]
        return replace(
            self,
            scopes=self.scopes | other.scopes,
            since=min(self.since, other.since),
            last_used_at=max(used, default=None),
        )


def apps_of(connection: Connection, user_id: str, now: int) -> Sequence[ConnectedApp]:
    """Return a person's apps by name."""
    found: dict[str, ConnectedApp] = {}
    for app in (*_consented(connection, user_id), *_living(connection, user_id, now)):
        found[app.client_id] = found[app.client_id].joined(app) if app.client_id in found else app
    return sorted(found.values(), key=lambda app: (app.name.casefold(), app.client_id))


def withdraw(connection: Connection, user_id: str, client_id: str, actor: Actor) -> bool:
    """Forget a consent and end all that came of it; returns whether there was anything."""
    apps = {app.client_id: app for app in apps_of(connection, user_id, actor.at)}
    mine = (consents.c.user_id == user_id) & (consents.c.client_id == client_id)
    forgotten = connection.execute(delete(consents).where(mine)).rowcount
    living = (family_table.c.user_id == user_id) & (family_table.c.client_id == client_id)
    if not families.revoke_all(connection, living, "withdrawn by its person", actor.at) and not forgotten:
        return False
    scopes = sorted(apps[client_id].scopes) if client_id in apps else []
    payload = GrantData(user=user_id, client=client_id, scopes=scopes)
    connection.publish(Event.of(GrantRevoked, payload, source=connection.source, subject=user_id))
    audit.record(connection, actor, "grant.revoked", about=user_id, client=client_id, scope=scope_text(scopes))
    return True


def _consented(connection: Connection, user_id: str) -> list[ConnectedApp]:
    query = (
        select(consents.c.client_id, clients.c.name, consents.c.scope, consents.c.granted_at)
        .join(clients, clients.c.id == consents.c.client_id)
        .where(consents.c.user_id == user_id)
    )
    return [
        ConnectedApp(row.client_id, row.name, frozenset(row.scope.split()), row.granted_at)
        for row in connection.execute(query)
    ]


def _living(connection: Connection, user_id: str, now: int) -> list[ConnectedApp]:
    used = (
        select(func.max(refresh_tokens.c.issued_at)).where(refresh_tokens.c.family_id == family_table.c.id)
    ).scalar_subquery()
    query = (
        select(family_table, clients.c.name, used.label("used_at"))
        .join(clients, clients.c.id == family_table.c.client_id)
        .outerjoin(sessions, sessions.c.id == family_table.c.session_id)
        .where(family_table.c.user_id == user_id, family_table.c.revoked_at.is_(None), _lasts(now))
    )
    return [
        ConnectedApp(
            row.client_id, row.name, frozenset(row.scope.split()), row.created_at, row.used_at or row.created_at
        )
        for row in connection.execute(query)
    ]


def _lasts(now: int) -> Any:
    return or_(family_table.c.session_id.is_(None), sessions.c.ended_at.is_(None) & (sessions.c.expires_at > now))
