"""This service as a client of another provider: the code flow with PKCE, nonce and state, and its ID token checked."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey, import_key
from pydantic_core import from_json

from auth_svc.upstreams import freshness
from auth_svc.upstreams.freshness import LEEWAY_SECONDS
from auth_svc.upstreams.providers import Arrival, Upstream
from auth_svc.upstreams.transport import CheckedTransport
from lib_auth.client import OAuthClient, PendingAuthorization
from lib_auth.id_token import IdTokenRejected, verify_id_token
from lib_auth.jwks import KeysUnavailable, check_rsa
from lib_auth.oauth_error import OAuthError, ResponseForged, ServerUnavailable
from lib_events.clock import Clock
from lib_events.http.checked import CheckedHttp

TIMEOUT_SECONDS = 12.0  # of everything that one page waits for
# OpenID Connect Core section 15.1 makes RS256 the one that every provider has; never `none`, never a shared secret.
ALGORITHMS = ("RS256", "ES256", "PS256", "ES384", "RS384", "RS512", "ES512")
LONGEST_SUBJECT = 255  # OpenID Connect Core section 2


class UpstreamFailed(Exception):
    """The other provider does not answer, or not as one; the text is for the log and says no secret."""


class UpstreamRefused(Exception):
    """The other provider, or the person there, said no."""


# What a provider that lies can bring about: the checks that refuse it, and everything that is not what it must be.
LIES = (
    *(ServerUnavailable, ResponseForged, IdTokenRejected, KeysUnavailable, TimeoutError, httpx.InvalidURL),
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError),
)


class UpstreamClient:
    """Speaks with other providers."""

    def __init__(self, http: CheckedHttp, clock: Clock) -> None:
        self._clock = clock
        # No proxy of the environment: it would connect where we must not.
        self._http = httpx.AsyncClient(transport=CheckedTransport(http), follow_redirects=False, trust_env=False)

    async def begin(self, upstream: Upstream, redirect_uri: str, parameters: Mapping[str, str]) -> PendingAuthorization:
        """Return where to send the browser, and what to remember; raises `UpstreamFailed`."""
        client = OAuthClient(upstream.issuer, upstream.client_id, http=self._http)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await client.begin_authorization(redirect_uri=redirect_uri, scope=upstream.scopes, **parameters)
        except (OAuthError, *LIES) as error:
            raise UpstreamFailed(_said(error)) from error

    async def finish(
        self, upstream: Upstream, secret: str, pending: PendingAuthorization, answer: Mapping[str, str], left_at: int
    ) -> Arrival:
        """Return who comes, having left at that moment; raises `UpstreamFailed` and `UpstreamRefused`."""
        client = OAuthClient(upstream.issuer, upstream.client_id, client_secret=secret, http=self._http)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                metadata = await client.metadata()
                tokens = await client.finish_authorization(pending, _with_issuer(answer, metadata))
                claims = await self._verify(upstream, str(tokens.id_token), pending.nonce, metadata)
                return _arrival(upstream, claims, left_at, self._clock.micros())
        except OAuthError as error:
            raise UpstreamRefused(error.error) from error
        except LIES as error:
            raise UpstreamFailed(_said(error)) from error

    async def _verify(
        self, upstream: Upstream, id_token: str, nonce: str, metadata: Mapping[str, Any]
    ) -> dict[str, Any]:
        keys = _Keys(self._http, str(metadata.get("jwks_uri")))
        return await verify_id_token(
            id_token,
            issuer=str(metadata["issuer"]),
            client_id=upstream.client_id,
            nonce=nonce,
            keys=keys,
            algorithms=ALGORITHMS,
            leeway_seconds=LEEWAY_SECONDS,
        )


class _Keys:
    """The keys of a provider, read when they are needed: people arrive seldom, and keys change."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def find(self, key_id: str) -> ECKey | RSAKey | None:
        """Return the key of that id, or the only one there is; raises `KeysUnavailable`."""
        try:
            answer = await self._http.get(self._url)
            answer.raise_for_status()
            members = from_json(answer.content)["keys"]
            found = [key for member in members if (key := _signing_key(member)) is not None]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError, KeyError) as error:
            raise KeysUnavailable(f"the keys of {self._url} cannot be read") from error
        named = [key for key in found if key.kid == key_id]
        if key_id == "None" and len(found) == 1:  # RFC 7515 section 4.1.4: the name may be left out
            return found[0]
        return named[0] if named else None


def _signing_key(member: Any) -> ECKey | RSAKey | None:
    """Return a key that may have signed; those that we cannot use are left out (RFC 7517 section 5)."""
    if member.get("kty") not in ("EC", "RSA") or member.get("use", "sig") != "sig":
        return None
    try:
        key = import_key(member)
        if isinstance(key, RSAKey):
            check_rsa(key)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, ECKey | RSAKey) else None


def _with_issuer(answer: Mapping[str, str], metadata: Mapping[str, Any]) -> Mapping[str, str]:
    """RFC 9207 section 2.4: who says it names itself must; of the others, our own redirect URI tells them apart."""
    if "iss" in answer or metadata.get("authorization_response_iss_parameter_supported"):
        return answer
    return {**answer, "iss": str(metadata["issuer"])}


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _arrival(upstream: Upstream, claims: Mapping[str, Any], left_at: int, now: int) -> Arrival:
    subject, email = claims.get("sub"), claims.get("email")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or "\0" in subject:
        raise UpstreamFailed("the ID token names nobody")
    verified = email if isinstance(email, str) and claims.get("email_verified") is True else None
    wanted = claims.get("preferred_username") or (verified or "").partition("@")[0] or subject
    signed_in_at = freshness.signed_in_at(claims, left_at, now)
    return Arrival(upstream.issuer, subject, str(wanted)[:64].replace("\0", ""), verified, signed_in_at)
