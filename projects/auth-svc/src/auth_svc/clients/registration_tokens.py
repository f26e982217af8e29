"""Initial access tokens (RFC 7591 section 3): an administrator lets somebody register some clients, for some time.

One is good as long as whoever made it administers, like an invitation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from auth_svc import listed, opaque
from auth_svc.audit import Actor, record
from auth_svc.people import administrators
from auth_svc.tables import registration_tokens
from lib_events.database import Connection


@dataclass(frozen=True, slots=True)
class RegistrationToken:
    """What whoever has the token may do."""

    id: str
    scopes: frozenset[str]
    note: str
    uses_left: int
    created_by: str
    created_at: int
    expires_at: int
    lapsed: bool = False  # whoever made it administers no more

    def status(self, now: int) -> str:
        """In a word: good, used, expired or lapsed."""
        if not self.uses_left:
            return "used"
        if now >= self.expires_at:
            return "expired"
        return "lapsed" if self.lapsed else "good"


def issue(connection: Connection, token: RegistrationToken, secret: str, actor: Actor) -> None:
    """Keep a new token."""
    connection.execute(
        insert(registration_tokens).values(
            id=token.id,
            digest=opaque.digest(secret),
            scopes=listed.to_text(sorted(token.scopes)),
            note=token.note,
            uses_left=token.uses_left,
            created_by=token.created_by,
            created_at=token.created_at,
            expires_at=token.expires_at,
        )
    )
    record(connection, actor, "registration-token.issued", about=token.id, uses=token.uses_left, note=token.note)


def use(connection: Connection, secret: str, now: int) -> RegistrationToken | None:
    """Take one use of a token; None when it has none left, never was, or whoever made it administers no more."""
    good = (
        (registration_tokens.c.digest == opaque.digest(secret))
        & (registration_tokens.c.uses_left > 0)
        & (registration_tokens.c.expires_at > now)
    )
    maker = connection.scalar(select(registration_tokens.c.created_by).where(good))
    if maker is None or not administrators.administers(connection, maker):
        return None
    used = update(registration_tokens).where(good).values(uses_left=registration_tokens.c.uses_left - 1)
    if not connection.execute(used).rowcount:
        return None
    query = select(registration_tokens).where(registration_tokens.c.digest == opaque.digest(secret))
    return _token(connection.execute(query).one())


def page(connection: Connection) -> Sequence[RegistrationToken]:
    """Return every token, newest first; there are never many."""
    query = select(registration_tokens).order_by(registration_tokens.c.created_at.desc())
    found = [_token(row) for row in connection.execute(query)]
    good = {who: administrators.administers(connection, who) for who in {each.created_by for each in found}}
    return [replace(each, lapsed=not good[each.created_by]) for each in found]


def revoke(connection: Connection, token_id: str, actor: Actor) -> bool:
    """Forget a token; returns whether there was one."""
    gone = connection.execute(delete(registration_tokens).where(registration_tokens.c.id == token_id)).rowcount
    if gone:
        record(connection, actor, "registration-token.revoked", about=token_id)
    return bool(gone)


def _token(row: Row[Any]) -> RegistrationToken:
    scopes = frozenset(listed.from_text(row.scopes))
    return RegistrationToken(
        id=row.id,
        scopes=scopes,
        note=row.note,
        uses_left=row.uses_left,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
