"""Which tokens were revoked: kept in the service's database, learnt from the issuer's feed and its events.

The feed is the truth and says when it was read to its head; events only make it faster. As long as the feed
has not been heard for `unheard_seconds` nothing is taken for granted: each token is introspected, and where
that fails too the answer is `RevocationsUnknown`. It never fails open.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from sqlalchemy import delete, select

from lib_auth.access_token import RevocationsUnknown
from lib_auth.client import OAuthClient, basic_authorization
from lib_auth.events import KeyRevoked, SessionEnded, TokenRevoked, UserDisabled
from lib_auth.oauth_error import OAuthError, ServerUnavailable
from lib_auth.principal import Principal
from lib_auth.tables import revocation_cursors, revocations
from lib_events.clock import to_micros
from lib_events.database import Connection, Database, insert_into
from lib_events.event import Event
from lib_events.lifecycle import Loop
from lib_events.secret_file import SecretFileExposed
from lib_events.subscription import subscribe

logger = logging.getLogger(__name__)

FEED_PATH = "/v1/revocations"
TOPIC = "token-revocations"
EVENT_TYPES = (TokenRevoked, SessionEnded, UserDisabled, KeyRevoked)
UNHEARD_SECONDS = 10.0
WAIT_SECONDS = 3  # how long the issuer may hold the question when it has nothing to tell: two fit into the silence
PAUSE_SECONDS = 0.5
REST_SECONDS = 3600.0  # until the next look without an event: the feed tells the same
FEED_TIMEOUT_SECONDS = WAIT_SECONDS + 3.0
KEEP_SECONDS = 3601  # no access token lives longer than an hour
# Clocks differ and are set back, by an hour where somebody forgot summer time: what refuses a token stays for longer.
SLACK_SECONDS = 2 * 3600
MICROS = 1_000_000

type Kind = Literal["token", "family", "session", "user", "client", "role", "key"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """Refuses every access token that `kind` and `value` name, if it was issued until `issued_until`."""

    kind: Kind
    value: str
    issued_until: int  # seconds since the epoch; 0: whenever it was issued
    expires_at: int

    def reaches(self, issued_at: float) -> bool:
        """Whether it refuses what was issued at that moment."""
        return self.issued_until == 0 or issued_at <= self.issued_until

    def to_dict(self) -> dict[str, Any]:
        """Return an item of the feed."""
        return {
            "kind": self.kind,
            "value": self.value,
            "issued_until": self.issued_until,
            "expires_at": self.expires_at,
        }

    @classmethod
    def from_dict(cls, item: dict[str, Any]) -> "Revocation":
        """Read an item of the feed."""
        return cls(item["kind"], str(item["value"]), int(item["issued_until"]), int(item["expires_at"]))


def revocations_of(event: Event) -> tuple[Revocation, ...]:
    """Return what an event of the AuthService revokes; empty for events of other types."""
    happened_at = to_micros(event.time) // MICROS
    latest = happened_at + KEEP_SECONDS
    if event.type == SessionEnded.name:
        ended = event.payload(SessionEnded)
        return (Revocation("session", ended.session, 0, ended.expires_at or latest),)
    if event.type == UserDisabled.name:
        return (Revocation("user", event.payload(UserDisabled).user, happened_at, latest),)
    if event.type == KeyRevoked.name:
        return (Revocation("key", event.payload(KeyRevoked).key, 0, latest),)
    if event.type != TokenRevoked.name:
        return ()
    data = event.payload(TokenRevoked)
    until, expires_at = data.issued_until or happened_at, data.expires_at or latest
    named: tuple[tuple[Kind, str | None, int], ...] = (
        ("token", data.token, 0),
        ("family", data.family, 0),
        ("session", data.session, 0),
        ("user", data.user, until),
        ("client", data.client, until),
        ("role", data.role, until),
    )
    return tuple(Revocation(kind, value, when, expires_at) for kind, value, when in named if value)


class RevocationList:
    """The revocations that still matter, looked up by what a token says of itself."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Revocation] = {}
        self._roles: frozenset[str] = frozenset()  # of which something was taken

    def add(self, found: Iterable[Revocation]) -> None:
        """Take in `found`; of two about the same thing the one that refuses more stays."""
        for revocation in found:
            key = (revocation.kind, revocation.value)
            known = self._known.get(key)
            if known is None or revocation.issued_until >= known.issued_until:
                self._known[key] = revocation
        self._note_roles()

    def forget_expired(self, now: float) -> None:
        """Drop what names only expired tokens."""
        self._known = {key: known for key, known in self._known.items() if known.expires_at > now}
        self._note_roles()

    def __len__(self) -> int:
        return len(self._known)

    def refuses(self, principal: Principal) -> bool:
        """Whether the principal's token was revoked."""
        if not self._known:
            return False
        issued_at = principal.issued_at.timestamp()
        named = (
            ("token", principal.token_id),
            ("family", principal.family_id),
            ("session", principal.session_id),
            ("user", principal.subject),
            ("client", principal.client_id),
            ("key", principal.key_id),
        )
        for kind, value in named:
            known = self._known.get((kind, value)) if value is not None else None
            if known is not None and known.reaches(issued_at):
                return True
        return bool(self._roles) and any(
            self._known["role", role].reaches(issued_at) for role in self._roles & principal.roles
        )

    def _note_roles(self) -> None:
        self._roles = frozenset(value for kind, value in self._known if kind == "role")


class Revocations(Loop):
    """Follows the issuer's revocations for one service; a `RevocationCheck`.

    Without a database it reads the feed from its beginning at every start: what it tells is an hour's worth at most.
    """

    def __init__(
        self,
        database: Database | None = None,
        *,
        issuer: str,
        client_id: str,
        client_secret: Callable[[], str],
        http: httpx.AsyncClient,
        unheard_seconds: float = UNHEARD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="revocations")
        self._database = database
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret  # read when needed: it may not be there yet at our start
        self._http = http
        self._unheard_seconds = unheard_seconds
        self._clock = clock
        self._list = RevocationList()
        self._cursor: str | None = None
        self._heard_at: float | None = None

    async def is_revoked(self, principal: Principal, token: str) -> bool:
        """Whether the token may no longer be used; raises `RevocationsUnknown`."""
        if self._list.refuses(principal):
            return True
        if self.is_up_to_date:
            return False
        is_active = await self._introspect(token)
        return not is_active or self._list.refuses(principal)  # of which was heard meanwhile

    @property
    def is_up_to_date(self) -> bool:
        """Whether the feed, as it was a short while ago, was read to its head."""
        return self._heard_at is not None and self._clock() - self._heard_at < self._unheard_seconds

    async def check_ready(self) -> str | None:
        """A readiness check: None, or why tokens cannot be accepted yet."""
        return None if self.is_up_to_date else "revocations have not been heard of"

    async def run(self) -> None:
        """Follow the feed, and the events beside it: the issuer may hold a question, or hang."""
        self._cursor = self._cursor or await self._reload()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._follow_feed())
            if self._database is not None:
                both.create_task(self._follow_events(self._database))

    async def _follow_events(self, database: Database) -> None:
        unsubscribe = database.on_notify(TOPIC, self.wake)
        try:
            while True:
                if await self.pause(REST_SECONDS):
                    await self._reload()
        finally:
            unsubscribe()

    async def _follow_feed(self) -> None:
        """Read on and on; between two questions at most `PAUSE_SECONDS` pass."""
        silent = False
        while True:
            try:
                await self._read_feed()
                silent = False
            except (httpx.HTTPError, ValueError, KeyError, OSError, SecretFileExposed) as error:
                if not silent:
                    logger.warning("revocations cannot be read from %s: %s", self._issuer, error)
                silent = True
            await asyncio.sleep(PAUSE_SECONDS if silent or self._heard_at is None else 0.01)

    async def _read_feed(self) -> None:
        """Read on from the cursor; at the head we know everything that was revoked until we asked.

        Not until the answer is read: it may have waited for us, where this process was stopped meanwhile. What was read
        counts before it is kept, which may take long.
        """
        asked_at, now = self._clock(), time.time() - SLACK_SECONDS
        page = await self._ask_feed()
        found = [Revocation.from_dict(item) for item in page["items"]]
        self._list.add(found)
        self._list.forget_expired(now)
        if found and self._database is not None:
            await self._database.transact(keep, found, self._issuer, page["next_cursor"], int(now))
        self._cursor = page["next_cursor"]
        if page["head"]:
            self._heard_at = asked_at

    async def _ask_feed(self) -> dict[str, Any]:
        # The first question must not wait: until it is answered the service is not ready.
        parameters: dict[str, str | int] = {"wait": WAIT_SECONDS if self._heard_at is not None else 0}
        if self._cursor is not None:
            parameters["after"] = self._cursor
        answer = await self._http.get(
            self._issuer + FEED_PATH,
            params=parameters,
            headers={"Authorization": basic_authorization(self._client_id, self._client_secret())},
            timeout=FEED_TIMEOUT_SECONDS,
        )
        if answer.status_code == httpx.codes.GONE:  # the issuer's log was restored: read it from the beginning
            self._cursor = None
        answer.raise_for_status()
        page: dict[str, Any] = answer.json()
        return page

    async def _reload(self) -> str | None:
        """Take in what is kept, by other processes of the service, too; returns how far they read the feed."""
        if self._database is None:
            return None
        found, cursor = await self._database.read(load, self._issuer)
        self._list.add(found)
        return cursor

    async def _introspect(self, token: str) -> bool:
        """Whether the issuer calls the token active right now."""
        try:
            secret = self._client_secret()
        except (OSError, SecretFileExposed) as error:
            detail = "nobody can say whether the token was revoked: this service has no secret to ask with"
            raise RevocationsUnknown(detail) from error
        client = OAuthClient(self._issuer, self._client_id, client_secret=secret, http=self._http)
        try:
            answer = await client.introspect(token)
        except (OAuthError, ServerUnavailable) as error:
            raise RevocationsUnknown(f"nobody can say whether the token was revoked: {error}") from error
        return answer.get("active") is True


@subscribe(*EVENT_TYPES, durable="token-revocations")
def hear_revocations(connection: Connection, event: Event) -> None:
    """Keep what an imported event revokes and wake every process of the service."""
    found = revocations_of(event)
    if found:
        _upsert(connection, found)
        connection.notify(TOPIC)


def keep(connection: Connection, found: Sequence[Revocation], issuer: str, cursor: str, now: int) -> None:
    """Transaction function: keep what the feed told and how far it was read."""
    _upsert(connection, found)
    connection.execute(delete(revocations).where(revocations.c.expires_at <= now))
    connection.execute(delete(revocation_cursors).where(revocation_cursors.c.issuer == issuer))
    connection.execute(revocation_cursors.insert().values(issuer=issuer, cursor=cursor))


def load(connection: Connection, issuer: str) -> tuple[list[Revocation], str | None]:
    """Return what is kept."""
    rows = connection.execute(select(revocations))
    found = [Revocation(row.kind, row.value, row.issued_until, row.expires_at) for row in rows]
    cursor = select(revocation_cursors.c.cursor).where(revocation_cursors.c.issuer == issuer)
    return found, connection.scalar(cursor)


def _upsert(connection: Connection, found: Sequence[Revocation]) -> None:
    for revocation in found:
        statement = insert_into(connection, revocations).values(revocation.to_dict())
        newer = statement.excluded
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["kind", "value"],
                set_={"issued_until": newer.issued_until, "expires_at": newer.expires_at},
                where=revocations.c.issued_until <= newer.issued_until,
            )
        )
