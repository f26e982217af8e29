"""Asking for a role: a pending row with a nonce here, an approval there, and the check that brings both together."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, insert, select, update

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.opaque import new_id
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.rights import roles
from auth_svc.rights.roles import ROLE, Roles
from auth_svc.tables import access_requests
from lib_auth.events import (
    AccessGranted,
    AccessGrantedData,
    AccessRefused,
    AccessRefusedData,
    AccessRequested,
    AccessRequestedData,
)
from lib_auth.principal import ADMIN
from lib_events.database import Connection
from lib_events.event import Event

# The approval's own deadline is a week; after it the person may ask again.
WAITING_MICROS = 8 * 24 * 3600 * 1_000_000
MAX_WAITING = 10  # each is a row here and a run there that asks somebody


class AccessRequestRejected(Exception):
    """A role cannot be asked for like that; `status` is HTTP's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A person's wish for a role."""

    id: str
    user_id: str
    role: str
    reason: str
    nonce: str = field(repr=False)
    status: str
    created_at: int
    decided_at: int | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody says was decided about a request; nothing of it is believed before it is checked."""

    approval: str
    approved: bool
    by: str
    request: str
    user: str
    role: str
    nonce: str
    comment: str | None = None


def ask(connection: Connection, user_id: str, role: str, reason: str, actor: Actor) -> AccessRequest:
    """Make a pending request and tell; raises `AccessRequestRejected`."""
    account = accounts.lock(connection, user_id)
    if account is None or not account.enabled:
        raise AccessRequestRejected(403, "only a person can ask for a role")
    if not ROLE.fullmatch(role) or _administers(connection, role):
        raise AccessRequestRejected(422, f"role must be one that can be asked for, got {role!r}; admin never is")
    if role in _held(connection, account):
        raise AccessRequestRejected(409, f"you hold the role {role} already; sign in again to use it")
    waiting = _waiting(connection, user_id, actor.at)
    if role in waiting:
        raise AccessRequestRejected(409, f"your request {waiting[role]} for {role} is still waiting for its decision")
    if len(waiting) >= MAX_WAITING:
        raise AccessRequestRejected(409, f"{MAX_WAITING} of your requests wait for their decision; wait with them")
    row = AccessRequest(new_id(), user_id, role, reason, secrets.token_urlsafe(16), "pending", actor.at, None, None)
    names = ("id", "user_id", "role", "reason", "nonce", "status", "created_at")
    connection.execute(insert(access_requests).values({name: getattr(row, name) for name in names}))
    payload = AccessRequestedData(
        request=row.id, user=user_id, username=account.username, role=role, reason=reason, nonce=row.nonce
    )
    connection.publish(Event.of(AccessRequested, payload, source=connection.source, subject=row.id))
    audit.record(connection, actor, "access.requested", about=row.id, role=role)
    return row


def of_user(connection: Connection, user_id: str) -> Sequence[AccessRequest]:
    """Return a person's requests, newest first."""
    query = select(access_requests).where(access_requests.c.user_id == user_id)
    return [_request(row) for row in connection.execute(query.order_by(access_requests.c.created_at.desc()))]


def decide(connection: Connection, decision: Decision, actor: Actor) -> None:
    """Grant or refuse a pending request, or record a forgery; the row decides, never the message."""
    query = select(access_requests).where(access_requests.c.id == decision.request).with_for_update()
    row = connection.execute(query).one_or_none()
    forgery = _forgery(row, decision)
    if row is None or forgery is not None:
        _record_forgery(connection, decision, forgery or "there is no such request", actor)
        return
    objection = _objection(connection, decision)
    if decision.approved and objection is None:
        _grant(connection, _request(row), decision, actor)
    else:
        why = objection or decision.comment or "the request was rejected"
        _refuse(connection, _request(row), decision, actor, why)


def _administers(connection: Connection, role: str) -> bool:
    """Whether whoever holds the role administers this service: it is `admin`, or includes it."""
    return ADMIN in Roles(roles.load(connection)).held([role])


def _held(connection: Connection, account: Account) -> frozenset[str]:
    return Roles(roles.load(connection)).held(account.granted_roles)


def _waiting(connection: Connection, user_id: str, now: int) -> dict[str, str]:
    """Return the person's undecided requests: role and id."""
    pending = (access_requests.c.user_id == user_id) & (access_requests.c.status == "pending")
    recent = access_requests.c.created_at > now - WAITING_MICROS
    query = select(access_requests.c.role, access_requests.c.id).where(pending & recent)
    return {row.role: row.id for row in connection.execute(query)}


def _forgery(row: Row[Any] | None, decision: Decision) -> str | None:
    """Say why the decision is not about the row, if it is not."""
    if row is None:
        return "there is no such request"
    if row.status != "pending":
        return "the request was decided before"
    if not secrets.compare_digest(row.nonce.encode(), decision.nonce.encode()):
        return "the nonce is not the request's"
    if (row.user_id, row.role) != (decision.user, decision.role):
        return "the asker or the role is not the request's"
    return None


def _objection(connection: Connection, decision: Decision) -> str | None:
    """Say why the decider may not decide, if they may not; our own rows say what they hold."""
    decider = accounts.lock(connection, decision.by)
    if decider is None or not decider.enabled or ADMIN not in _held(connection, decider):
        return "the decider does not hold the role admin"
    if decision.by == decision.user:
        return "nobody decides about themselves"
    if _administers(connection, decision.role):  # it may have come to include it since
        return "the role admin is never granted on request"
    if not roles.described(connection, [decision.role]):
        # Whoever held it would have whatever it is made to mean later.
        return (
            f"there is no role {decision.role}; make it, then let them ask again: evs admin role create {decision.role}"
        )
    if accounts.enabled(accounts.lock(connection, decision.user)) is None:
        return "the asker cannot sign in any more"
    return None


def _grant(connection: Connection, row: AccessRequest, decision: Decision, actor: Actor) -> None:
    _close(connection, row, "granted", decision, actor, why=None)
    account = accounts.existing(connection, row.user_id)
    accounts.set_roles(connection, row.user_id, account.roles | {row.role}, actor)
    payload = AccessGrantedData(
        request=row.id, user=row.user_id, role=row.role, by=decision.by, approval=decision.approval
    )
    connection.publish(Event.of(AccessGranted, payload, source=connection.source, subject=row.id))
    audit.record(connection, actor, "access.granted", about=row.id, role=row.role, user=row.user_id)


def _refuse(connection: Connection, row: AccessRequest, decision: Decision, actor: Actor, why: str) -> None:
    _close(connection, row, "refused", decision, actor, why=why)
    _tell_refused(connection, decision, why)
    audit.record(connection, actor, "access.refused", about=row.id, role=row.role, user=row.user_id, why=why)


def _record_forgery(connection: Connection, decision: Decision, why: str, actor: Actor) -> None:
    _tell_refused(connection, decision, why)
    audit.record(
        connection, actor, "access.forged", about=decision.request, approval=decision.approval, by=decision.by, why=why
    )


def _tell_refused(connection: Connection, decision: Decision, why: str) -> None:
    payload = AccessRefusedData(
        request=decision.request, user=decision.user, role=decision.role, why=why, approval=decision.approval
    )
    connection.publish(Event.of(AccessRefused, payload, source=connection.source, subject=decision.request))


def _close(
    connection: Connection, row: AccessRequest, status: str, decision: Decision, actor: Actor, *, why: str | None
) -> None:
    values = {"status": status, "decided_at": actor.at, "decided_by": decision.by, "why": why}
    connection.execute(update(access_requests).where(access_requests.c.id == row.id).values(values))


def _request(row: Row[Any]) -> AccessRequest:
    return AccessRequest(
        id=row.id,
        user_id=row.user_id,
        role=row.role,
        reason=row.reason,
        nonce=row.nonce,
        status=row.status,
        created_at=row.created_at,
        decided_at=row.decided_at,
        why=row.why,
    )
