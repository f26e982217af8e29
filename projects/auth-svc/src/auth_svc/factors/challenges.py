"""WebAuthn challenges: made without writing anything, good for one browser, one purpose and one answer.

The sign-in page needs one whenever somebody opens it, and strangers must not fill a table by that. So a challenge
is sealed rather than kept: it carries when it ends, and only we could have made it, for this browser. A row is
written when it is answered, and of two answers one finds the other's row.
"""

from auth_svc.opaque import digest
from auth_svc.tables import used_challenges
from lib_events.database import Connection, insert_into
from lib_events.sealed import SealingKey, SecretUnreadable

LIFETIME_SECONDS = 300
MICROS = 1_000_000


def make(key: SealingKey, *, purpose: str, cookie: str, now: int) -> bytes:
    """Return a challenge for the browser of that cookie."""
    return key.seal(str(now + LIFETIME_SECONDS * MICROS), purpose=_bound(purpose, cookie))


def use(connection: Connection, challenge: bytes, key: SealingKey, *, purpose: str, cookie: str, now: int) -> bool:
    """Whether the challenge is ours, for this, and answered for the first time and in time."""
    try:
        expires_at = int(key.unseal(challenge, purpose=_bound(purpose, cookie)))
    except SecretUnreadable:
        return False
    if now >= expires_at:
        return False
    kept = digest(challenge.hex())
    first = insert_into(connection, used_challenges).values(digest=kept, expires_at=expires_at).on_conflict_do_nothing()
    return bool(connection.execute(first).rowcount)


def _bound(purpose: str, cookie: str) -> str:
    return f"passkey challenge: {purpose}, {digest(cookie).hex()}"
