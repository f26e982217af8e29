"""A sign-in that lasts: hands out access tokens and refreshes them when they are about to expire."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lib_auth.client import OAuthClient
from lib_auth.oauth_error import OAuthError
from lib_auth.token_store import DEFAULT_RESOURCE, StoredTokens, StoreUnavailable, TokenStore, locked
from lib_auth.tokens import TokenSet

if TYPE_CHECKING:
    from lib_auth.proof_key import ProofKey

# A token that expires on the way to the service is no use.
RENEW_SECONDS = 15.0


class NotSignedIn(Exception):
    """There is no sign-in to use, or it is over; sign in again."""


class TokenSource(Protocol):
    """Whatever can say which access token to send."""

    async def access_token(self, resource: str = DEFAULT_RESOURCE) -> str:
        """Return an access token for `resource` that is valid now."""
        ...


class SignIn:
    """The kept tokens of one context, shared by every process of this person."""

    def __init__(self, client: OAuthClient, store: TokenStore, *, context: str, locks: Path) -> None:
        self._client = client
        self._store = store
        self._context = context
        self._locks = locks

    async def keep(
        self, tokens: TokenSet, *, resource: str = DEFAULT_RESOURCE, proof_key: "ProofKey | None" = None
    ) -> None:
        """Keep what a sign-in just brought, in place of what was there; with the key it is bound to, if it is."""
        key = proof_key.to_dict() if proof_key is not None else None
        fresh = StoredTokens(self._client.issuer, self._client.client_id, tokens.refresh_token, proof_key=key)
        async with locked(self._locks, self._context):
            self._store.save(self._context, fresh.with_tokens(tokens, resource=resource))

    async def access_token(self, resource: str = DEFAULT_RESOURCE) -> str:
        """Return a valid access token, refreshed if need be; raises `NotSignedIn`."""
        if current := _usable(self._load(), resource):
            return current
        async with locked(self._locks, self._context):
            kept = self._load()  # another process may have refreshed while we waited
            return _usable(kept, resource) or await self._refresh(kept, resource)

    async def renew(self, rejected: str, resource: str = DEFAULT_RESOURCE) -> str:
        """Return another access token than `rejected`, which a service has answered with 401."""
        async with locked(self._locks, self._context):
            kept = self._load()
            current = kept.access.get(resource)
            if current is not None and current.access_token != rejected and not current.expires_within(0):
                return current.access_token
            return await self._refresh(kept, resource)

    def headers(self, token: str, method: str, url: str) -> dict[str, str]:
        """Return the headers that send `token`, just handed out, with one request."""
        key = self._client.proof_key
        return bearer(token) if key is None else key.headers(method, url, token)

    async def sign_out(self) -> None:
        """Revoke the refresh token and forget everything; what is kept here goes even if the server is away."""
        async with locked(self._locks, self._context):
            kept = self._store.load(self._context)
            self._store.delete(self._context)
        if kept is not None and kept.refresh_token is not None and self._is_of_client(kept):  # nobody else is told it
            await self._client.revoke(kept.refresh_token)

    def _load(self) -> StoredTokens:
        kept = self._store.load(self._context)
        if kept is None or not self._is_of_client(kept):
            raise NotSignedIn(f"nobody is signed in to {self._client.issuer}; run: evs auth login")
        self._client.proof_key = _proof_key_of(kept)
        return kept

    def _is_of_client(self, kept: StoredTokens) -> bool:
        """Whether it was this client of this issuer that got it; a last slash of its name is told by itself alone."""
        same_issuer = kept.issuer.rstrip("/") == self._client.issuer.rstrip("/")
        return same_issuer and kept.client_id == self._client.client_id

    async def _refresh(self, kept: StoredTokens, resource: str) -> str:
        if (refresh_token := kept.refresh_token) is None:
            raise NotSignedIn("the sign-in has ended; run: evs auth login")
        if kept.idempotency_key is None:  # kept before it is sent, or nobody could say it again who was killed
            kept = replace(kept, idempotency_key=secrets.token_urlsafe(32))
            self._store.save(self._context, kept)
        try:
            tokens = await self._client.refresh(
                refresh_token, resource=resource or None, idempotency_key=kept.idempotency_key
            )
        except OAuthError as error:
            if error.error == "invalid_grant":
                self._store.delete(self._context)
                raise NotSignedIn("the sign-in has ended; run: evs auth login") from error
            raise
        self._store.save(self._context, kept.with_tokens(tokens, resource=resource))
        return tokens.access_token


class ServiceSignIn:
    """A program's own credentials: a token per resource, renewed when it is about to expire."""

    def __init__(self, client: OAuthClient, *, scope: str = "") -> None:
        self._client = client
        self._scope = scope
        self._tokens: dict[str, TokenSet] = {}

    async def access_token(self, resource: str = DEFAULT_RESOURCE) -> str:
        """Return a valid access token for the client itself."""
        held = self._tokens.get(resource)
        if held is None or held.expires_within(RENEW_SECONDS):
            held = await self._client.client_credentials(scope=self._scope, resource=resource or None)
            self._tokens[resource] = held
        return held.access_token

    async def renew(self, rejected: str, resource: str = DEFAULT_RESOURCE) -> str:
        """Return another access token than `rejected`, which a service has answered with 401."""
        held = self._tokens.get(resource)
        if held is not None and held.access_token == rejected:
            del self._tokens[resource]  # refused before its time: what it says of our roles is no longer so, perhaps
        return await self.access_token(resource)


def bearer(token: str) -> dict[str, str]:
    """Return the header that sends a token which is bound to nothing (RFC 6750 section 2.1)."""
    return {"authorization": f"Bearer {token}"}


def _proof_key_of(kept: StoredTokens) -> "ProofKey | None":
    if kept.proof_key is None:
        return None
    from lib_auth.proof_key import ProofKey  # noqa: PLC0415 - most sign-ins have none, and need no cryptography

    try:
        return ProofKey.from_dict(kept.proof_key)
    except ValueError as error:
        raise StoreUnavailable("the kept key cannot be read; sign in again") from error


def _usable(kept: StoredTokens, resource: str) -> str | None:
    tokens = kept.access.get(resource)
    return None if tokens is None or tokens.expires_within(RENEW_SECONDS) else tokens.access_token
