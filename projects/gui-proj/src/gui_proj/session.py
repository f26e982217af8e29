"""Sessions of people: the browser holds a random name, the server holds the tokens.

At rest a session is a row of a small SQLite file, so that a restart signs nobody out. The row is sealed with a
key derived from the cookie, and found by the cookie's digest: the file alone gives away no token.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import sqlite3
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gui_proj import sealed
from lib_auth.client import OAuthClient
from lib_auth.oauth_error import OAuthError, ServerUnavailable
from lib_auth.principal import OPERATOR, with_included
from lib_auth.tokens import TokenSet

LIFETIME_SECONDS: Final = 7 * 86400
PURPOSE: Final = "evs-gui session"
MANAGE: Final = "workflows:manage"

SCHEMA: Final = """
create table if not exists sessions (
  digest text primary key,
  sealed blob not null,
  expires_at real not null
) without rowid
"""


class SignedOut(Exception):
    """There is no session any more; the person has to sign in again."""


class AuthServiceDown(Exception):
    """The AuthService did not answer, so nothing can be said about the session; try again later."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in, as the AuthService said."""

    subject: str
    username: str
    roles: tuple[str, ...] = ()

    @classmethod
    def of(cls, claims: dict[str, Any]) -> "Person":
        username = claims.get("preferred_username") or claims.get("name") or claims["sub"]
        return cls(str(claims["sub"]), str(username), tuple(sorted(claims.get("roles") or ())))


@dataclass(slots=True)
class Session:
    """One signed-in browser."""

    cookie: str = field(repr=False)
    person: Person
    tokens: TokenSet = field(repr=False)
    began_at: float
    ended: bool = False
    notice: tuple[str, str] | None = None  # tone and text, shown once on the next page
    idempotency_key: str | None = field(default=None, repr=False)  # of a refresh whose answer is not there yet
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.cookie.encode()).hexdigest()

    @property
    def public_key(self) -> str:
        """Names the session towards its own browser's tabs; worth nothing to anybody else."""
        return self.digest[:16]

    @property
    def may_manage(self) -> bool:
        """Whether this person, with this GUI, may see to everybody's runs and to schedules."""
        return MANAGE in self.tokens.scope and OPERATOR in with_included(self.person.roles)

    @property
    def expires_at(self) -> float:
        return self.began_at + LIFETIME_SECONDS

    def csrf_token(self) -> str:
        """A token for one page; masked anew each time, so that compression tells nothing of it (BREACH)."""
        mask = secrets.token_bytes(16)
        return base64.urlsafe_b64encode(mask + _xor(mask, self._csrf_secret())).decode()

    def csrf_token_fits(self, token: str) -> bool:
        given = sealed.from_text(token)
        return len(given) == 32 and hmac.compare_digest(_xor(given[:16], given[16:]), self._csrf_secret())

    def _csrf_secret(self) -> bytes:
        return sealed.derived_key(self.cookie, "evs-gui csrf")[:16]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


class Sessions:
    """All sessions; one process owns the file."""

    def __init__(self, path: Path, client: OAuthClient, *, resource: str) -> None:
        self._database = _open(path)
        self._client = client
        self._resource = resource
        self._known: dict[str, Session] = {}

    def close(self) -> None:
        self._database.close()

    def begin(self, person: Person, tokens: TokenSet) -> Session:
        """A new session under a new name: whatever the browser sent before is never continued."""
        self._forget_expired()
        session = Session(secrets.token_urlsafe(32), person, tokens, time.time())
        self._known[session.digest] = session
        self._save(session)
        return session

    def find(self, cookie: str | None) -> Session | None:
        if not cookie:
            return None
        digest = hashlib.sha256(cookie.encode()).hexdigest()
        session = self._known.get(digest) or self._load(cookie, digest)
        if session is None or session.ended or session.expires_at <= time.time():
            return None
        self._known[digest] = session
        return session

    def end(self, session: Session) -> None:
        session.ended = True
        self._known.pop(session.digest, None)
        with self._database as database:
            database.execute("delete from sessions where digest = ?", (session.digest,))

    async def renew(self, session: Session, rejected: str) -> None:
        """New tokens in place of the access token the AppService answered 401 to; one refresh at a time.

        Raises SignedOut when the AuthService refuses, AuthServiceDown when it does not answer.
        """
        # A refresh token is used up by being sent: its successor is kept even if whoever asked has gone, and until
        # then nobody else may send it again, so the lock belongs to the refresh and not to who asked for it.
        await asyncio.shield(asyncio.ensure_future(self._renew(session, rejected)))

    async def _renew(self, session: Session, rejected: str) -> None:
        async with session.renewing:
            if session.ended:
                raise SignedOut
            if session.tokens.access_token == rejected:  # else somebody who held the lock before brought new ones
                await self._refresh(session)

    async def _refresh(self, session: Session) -> None:
        old = session.tokens
        if old.refresh_token is None:
            self.end(session)
            raise SignedOut
        if session.idempotency_key is None:  # kept before it is sent: an answer that is lost can be asked for again
            session.idempotency_key = secrets.token_urlsafe(32)
            self._save(session)
        try:
            new = await self._client.refresh(
                old.refresh_token, resource=self._resource, idempotency_key=session.idempotency_key
            )
        except OAuthError as error:
            if error.error != "invalid_grant":  # RFC 6749 section 5.2: the others say nothing of the person's sign-in
                raise AuthServiceDown(f"it refuses this GUI: {error}") from error
            self.end(session)
            raise SignedOut from error
        except ServerUnavailable as error:
            raise AuthServiceDown from error
        if session.ended:  # signed out meanwhile: what came too late is not kept
            raise SignedOut
        session.idempotency_key = None
        session.tokens = replace(
            new, refresh_token=new.refresh_token or old.refresh_token, id_token=new.id_token or old.id_token
        )
        self._save(session)
        await self._refresh_person(session)

    async def _refresh_person(self, session: Session) -> None:
        """Roles may have been given or taken since; what is shown follows, what is allowed is not ours to say."""
        try:
            claims = await self._client.introspect(session.tokens.access_token)
        except (OAuthError, ServerUnavailable):
            return
        if claims.get("sub") == session.person.subject and not session.ended:
            session.person = Person.of({"preferred_username": session.person.username, **claims})
            self._save(session)

    def _save(self, session: Session) -> None:
        kept = {
            "person": asdict(session.person),
            "tokens": session.tokens.to_dict(),
            "began_at": session.began_at,
            "idempotency_key": session.idempotency_key,
        }
        key = sealed.derived_key(session.cookie, PURPOSE)
        content = sealed.seal(key, json.dumps(kept).encode(), purpose=PURPOSE)
        with self._database as database:
            database.execute(
                "insert or replace into sessions values (?, ?, ?)", (session.digest, content, session.expires_at)
            )

    def _load(self, cookie: str, digest: str) -> Session | None:
        row = self._database.execute("select sealed from sessions where digest = ?", (digest,)).fetchone()
        plain = row and sealed.unseal(sealed.derived_key(cookie, PURPOSE), row[0], purpose=PURPOSE)
        if not plain:
            return None
        kept = json.loads(plain)
        person = Person(**{**kept["person"], "roles": tuple(kept["person"]["roles"])})
        tokens, key = TokenSet.from_dict(kept["tokens"]), kept.get("idempotency_key")
        return Session(cookie, person, tokens, kept["began_at"], idempotency_key=key)

    def _forget_expired(self) -> None:
        now = time.time()
        with self._database as database:
            database.execute("delete from sessions where expires_at <= ?", (now,))
        for digest in [digest for digest, session in self._known.items() if session.expires_at <= now]:
            del self._known[digest]


def _open(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")  # a refresh token lost in a crash would end the whole sign-in
    database.execute(SCHEMA)
    return database
