"""Deletes what can never matter again: expired codes, used-up families, tokens and sessions long over."""

from sqlalchemy import ColumnElement, Table, delete, exists, or_, select

from auth_svc import audit_chain
from auth_svc.audit import Actor
from auth_svc.clients import unused
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS, MICROS
from auth_svc.tables import (
    access_requests,
    codes,
    delegations,
    device_codes,
    families,
    invitations,
    mail_links,
    proofs,
    pushed_requests,
    refresh_tokens,
    registration_tokens,
    revoked_tokens,
    sessions,
    sign_ins,
    upstream_arrivals,
    upstream_sign_ins,
    used_challenges,
)
from lib_auth.revocations import SLACK_SECONDS
from lib_events.clock import Clock
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop

PAUSE_SECONDS = 600.0
BATCH = 500  # a transaction must stay short: others wait for it
KEEP_SESSION_SECONDS = 30 * 24 * 3600
# Of no use once their minutes are over.
BRIEF = (sign_ins, upstream_arrivals, upstream_sign_ins, used_challenges)
HOLDING = (codes, device_codes, refresh_tokens, delegations)  # a family lives as long as one of these needs it
CLIENT_BATCHES = 25
KEEP_INVITATION_SECONDS = 30 * 24 * 3600  # administrators look at what became of it; then its address goes
KEEP_REQUEST_SECONDS = 90 * 24 * 3600  # so does who asked for a role; the audit says it longer


class Pruner(Loop):
    """Runs every ten minutes, a small transaction at a time."""

    def __init__(
        self, database: Database, clock: Clock, *, audit_days: int | None = None, unused_client_days: int = 0
    ) -> None:
        super().__init__(name="pruner")
        self._unused_client_days = unused_client_days  # 0: all stay
        self._audit_days = audit_days  # None: every line is kept
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Prune until nothing is left, then pause."""
        while True:
            while await self._database.transact(prune, self._clock.micros()):
                pass
            await self._prune_audit()
            await self._prune_clients()
            await self.pause(PAUSE_SECONDS)

    async def _prune_audit(self) -> None:
        if self._audit_days is None:
            return
        actor = Actor(self._clock.micros(), "pruner")
        before = actor.at - self._audit_days * 24 * 3600 * MICROS
        while await self._database.transact(audit_chain.prune, before, actor, BATCH) == BATCH:
            pass

    async def _prune_clients(self) -> None:
        """Let unused clients go, in small transactions and not too many at a time: the rest has time."""
        if not self._unused_client_days:
            return
        for _ in range(CLIENT_BATCHES):
            actor = Actor(self._clock.micros(), "pruner")
            if await self._database.transact(unused.prune, self._unused_client_days, actor) < unused.BATCH:
                return


def prune(connection: Connection, now: int) -> bool:
    """Delete a batch of each kind; returns whether there may be more."""
    later = now - LONGEST_ACCESS_SECONDS * MICROS
    counts = [
        # A used code is kept while its tokens may live: using it again must still end them.
        _delete(connection, codes, codes.c.expires_at < later),
        _delete(connection, device_codes, device_codes.c.expires_at < later),
        _delete(connection, refresh_tokens, refresh_tokens.c.expires_at < now),
        _delete(connection, delegations, delegations.c.expires_at < now),
        _delete(connection, pushed_requests, pushed_requests.c.expires_at < now),
        _delete(connection, proofs, proofs.c.expires_at < now),
        _delete(connection, revoked_tokens, revoked_tokens.c.expires_at < now // MICROS - SLACK_SECONDS),
        _delete(connection, mail_links, mail_links.c.expires_at < later),
        _delete(connection, invitations, invitations.c.expires_at < now - KEEP_INVITATION_SECONDS * MICROS),
        # A decision about one that is gone is taken for a forgery, and comes within eight days or never.
        _delete(connection, access_requests, access_requests.c.created_at < now - KEEP_REQUEST_SECONDS * MICROS),
        _delete(
            connection,
            registration_tokens,
            registration_tokens.c.expires_at < now - KEEP_INVITATION_SECONDS * MICROS,
        ),
        *(_delete(connection, table, table.c.expires_at < now) for table in BRIEF),
        _delete(connection, families, _is_spent(later)),
        _delete(connection, sessions, _is_forgotten(now)),
    ]
    return any(count == BATCH for count in counts)


def _is_spent(later: int) -> ColumnElement[bool]:
    """No secret of the family is left, its last access token has expired, and so has the session it was allowed in.

    As long as that lasts, the client is told of its end (Back-Channel Logout section 2.7).
    """
    held = [exists().where(table.c.family_id == families.c.id) for table in HOLDING]
    session = exists().where((sessions.c.id == families.c.started_in) & (sessions.c.expires_at > later))
    return (families.c.created_at < later) & ~or_(session, *held)


def _is_forgotten(now: int) -> ColumnElement[bool]:
    over = sessions.c.expires_at < now - KEEP_SESSION_SECONDS * MICROS
    return over & ~exists().where(families.c.session_id == sessions.c.id)


def _delete(connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
    key = next(iter(table.primary_key.columns))
    batch = select(key).where(which).limit(BATCH)
    return connection.execute(delete(table).where(key.in_(batch))).rowcount
