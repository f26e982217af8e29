"""Browsers that people have signed in with: guesses from elsewhere do not keep anybody out of theirs.

Such a browser holds a cookie that only we can have made. It opens nothing: it says who has signed in there before.
"""

import base64
import binascii
import json
from dataclasses import dataclass, replace

from auth_svc import opaque
from lib_events.sealed import SealingKey, SecretUnreadable

LIFETIME_SECONDS = 180 * 24 * 3600
MICROS = 1_000_000
MOST_PEOPLE = 5  # who share one browser
PURPOSE = "known browser"


@dataclass(frozen=True, slots=True)
class KnownBrowser:
    """One browser, and who has signed in with it and when, the latest first."""

    id: str
    people: tuple[tuple[str, int], ...] = ()

    def knows(self, user_id: str, *, since: int, now: int) -> bool:
        """Whether that person has signed in with it since then: since they have their password."""
        since = max(since, now - LIFETIME_SECONDS * MICROS)
        return any(each == user_id and at >= since for each, at in self.people)

    def with_person(self, user_id: str, now: int) -> "KnownBrowser":
        """The same once they have signed in."""
        others = (each for each in self.people if each[0] != user_id)
        return replace(self, people=((user_id, now), *others)[:MOST_PEOPLE])


def read(cookie: str, key: SealingKey) -> KnownBrowser:
    """Return the browser of a cookie; one that we never saw where there is none that counts."""
    try:
        sealed = base64.urlsafe_b64decode(cookie.encode())
        kept = json.loads(key.unseal(sealed, purpose=PURPOSE))
    except (SecretUnreadable, binascii.Error, ValueError):
        return KnownBrowser(opaque.new_id())
    return KnownBrowser(kept["id"], tuple((user_id, at) for user_id, at in kept["people"]))


def write(browser: KnownBrowser, key: SealingKey) -> str:
    """Return its cookie."""
    kept = json.dumps({"id": browser.id, "people": browser.people})
    return base64.urlsafe_b64encode(key.seal(kept, purpose=PURPOSE)).decode()
