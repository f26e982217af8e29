"""Invitations: an administrator lets somebody make an account, with roles if need be; each is used once.

One is good as long as whoever made it administers: somebody who may no longer let people in, themselves among them,
must not have a link in a drawer that still does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, select, update

from auth_svc import audit, listed
from auth_svc.audit import Actor
from auth_svc.mail import outbox, texts
from auth_svc.opaque import digest
from auth_svc.people import accounts, administrators
from auth_svc.rights.changes import ChangeConflicts
from auth_svc.rights.roles import says
from auth_svc.tables import invitations
from lib_auth.events import UserInvited, UserInvitedData
from lib_events.database import Connection, insert_into
from lib_events.event import Event

MICROS = 1_000_000
DAY_SECONDS = 24 * 3600
LIFETIME_SECONDS = 7 * DAY_SECONDS


class InvitationSpent(Exception):
    """An invitation is unknown, over, withdrawn, was used, or whoever made it is no administrator any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom to invite, and the secret by which an invitation that was asked for before is known."""

    email: str | None
    roles: frozenset[str]
    lifetime_seconds: int
    secret: str = field(repr=False)

    @property
    def id(self) -> str:
        """What the invitation is called: it follows from its secret, and tells nothing of it."""
        return digest(f"the id of {self.secret}").hex()[:32]


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody may make an account."""

    id: str
    email: str | None
    roles: frozenset[str]
    created_by: str
    created_at: int
    expires_at: int
    used_at: int | None = None
    used_by: str | None = None
    revoked_at: int | None = None
    lapsed: bool = False  # whoever made it administers no more

    def status(self, now: int) -> str:
        """In a word: waiting, used, revoked, expired or lapsed."""
        if self.used_at is not None:
            return "used"
        if self.revoked_at is not None:
            return "revoked"
        if now >= self.expires_at:
            return "expired"
        return "lapsed" if self.lapsed else "waiting"


def invite(connection: Connection, wanted: Wanted, actor: Actor) -> Invitation:
    """Make an invitation, and send it, unless it was made before; raises `AccountRejected` and `ChangeConflicts`."""
    accounts.check_roles(wanted.roles)
    if wanted.email is not None:
        accounts.check_email(wanted.email)
    expires_at = actor.at + wanted.lifetime_seconds * MICROS
    made = Invitation(wanted.id, wanted.email, wanted.roles, actor.who or "nobody", actor.at, expires_at)
    values = {
        "id": made.id,
        "digest": digest(wanted.secret),
        "email": made.email,
        "roles": listed.to_text(sorted(made.roles)),
        "created_by": made.created_by,
        "created_at": made.created_at,
        "expires_at": made.expires_at,
    }
    # Who asks at the same moment waits here, and sees what the first made.
    if not connection.execute(insert_into(connection, invitations).values(values).on_conflict_do_nothing()).rowcount:
        return _made_before(connection, wanted)
    if made.email is not None:
        letter = texts.invitation(wanted.secret, max(1, wanted.lifetime_seconds // DAY_SECONDS))
        outbox.put(connection, letter, to=made.email, user_id=None, now=actor.at, expires_at=made.expires_at)
    payload = UserInvitedData(
        invitation=made.id, roles=sorted(made.roles), by=actor.who, expires_at=made.expires_at // MICROS
    )
    connection.publish(Event.of(UserInvited, payload, source=connection.source, subject=made.id))
    audit.record(connection, actor, "user.invited", about=made.id, roles=sorted(made.roles))
    return made


def _made_before(connection: Connection, wanted: Wanted) -> Invitation:
    row = connection.execute(select(invitations).where(invitations.c.id == wanted.id)).one()
    made = _invitation(row)
    lifetime_seconds = (made.expires_at - made.created_at) // MICROS
    if (made.email, made.roles, lifetime_seconds) != (wanted.email, wanted.roles, wanted.lifetime_seconds):
        detail = "an Idempotency-Key must mean one invitation, got another one with it; send another key"
        raise ChangeConflicts("idempotency-key-used", detail)
    return _told(connection, [made])[0]


def find(connection: Connection, secret: str, now: int) -> Invitation:
    """Return the invitation of a link; raises `InvitationSpent`."""
    row = connection.execute(select(invitations).where(_usable(now) & _of(secret))).one_or_none()
    if row is None or not administrators.administers(connection, row.created_by):
        raise InvitationSpent
    return _invitation(row)


def use(connection: Connection, secret: str, user_id: str, now: int) -> None:
    """Use an invitation up: of many who do at the same time one wins; raises `InvitationSpent`."""
    values = {"used_at": now, "used_by": user_id}
    if not connection.execute(update(invitations).where(_usable(now) & _of(secret)).values(values)).rowcount:
        raise InvitationSpent


def revoke(connection: Connection, invitation_id: str, actor: Actor) -> Invitation | None:
    """Withdraw an invitation; one that was used stays used. None: there is no such invitation."""
    named = invitations.c.id == invitation_id
    if connection.execute(update(invitations).where(_usable(actor.at) & named).values(revoked_at=actor.at)).rowcount:
        audit.record(connection, actor, "user.invitation-revoked", about=invitation_id)
    row = connection.execute(select(invitations).where(named)).one_or_none()
    return None if row is None else _told(connection, [_invitation(row)])[0]


def keep(connection: Connection, role: str, now: int) -> None:
    """Raise `ChangeConflicts` while somebody is invited to a role that is about to be removed."""
    if connection.scalar(select(invitations.c.id).where(_usable(now) & says(invitations.c.roles, role)).limit(1)):
        raise ChangeConflicts("role-in-use", f"somebody is invited to the role {role}; revoke the invitation first")


def page(connection: Connection, after: str | None, limit: int) -> Sequence[Invitation]:
    """Return up to `limit` invitations in order of their ids, after that one."""
    query = select(invitations).order_by(invitations.c.id).limit(limit)
    if after is not None:
        query = query.where(invitations.c.id > after)
    return _told(connection, [_invitation(row) for row in connection.execute(query)])


def _told(connection: Connection, found: Sequence[Invitation]) -> Sequence[Invitation]:
    """Return invitations as they are to be shown: with what became of whoever made them."""
    good = {who: administrators.administers(connection, who) for who in {each.created_by for each in found}}
    return [replace(each, lapsed=not good[each.created_by]) for each in found]


def _usable(now: int) -> Any:
    return invitations.c.used_at.is_(None) & invitations.c.revoked_at.is_(None) & (invitations.c.expires_at > now)


def _of(secret: str) -> Any:
    return invitations.c.digest == digest(secret)


def _invitation(row: Row[Any]) -> Invitation:
    return Invitation(
        id=row.id,
        email=row.email,
        roles=frozenset(listed.from_text(row.roles)),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=row.used_at,
        used_by=row.used_by,
        revoked_at=row.revoked_at,
    )
