"""An OAuth client: discovery, the authorization code flow with PKCE, and every other grant we offer."""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

import httpx

from lib_auth.oauth_error import OAuthError, ResponseForged, ServerUnavailable
from lib_auth.tokens import TokenSet

if TYPE_CHECKING:  # most clients have no such key, and need nothing of what makes one
    from lib_auth.proof_key import ProofKey

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
DISCOVERY_PATH = "/.well-known/openid-configuration"
SLOW_DOWN_SECONDS = 5
REQUEST_TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class PendingAuthorization:
    """What a client remembers between sending the person away and getting the answer; keep it out of their reach."""

    url: str
    redirect_uri: str
    state: str
    nonce: str
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """A sign-in that a person completes on another device (RFC 8628 section 3.2)."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class OAuthClient:
    """One client of one issuer; confidential when it has a secret.

    With a `proof_key` all tokens it gets are bound to that (DPoP, RFC 9449).
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        *,
        client_secret: str | None = None,
        http: httpx.AsyncClient | None = None,
        proof_key: "ProofKey | None" = None,
    ) -> None:
        self.proof_key = proof_key
        self._nonce: str | None = None  # the last one that the issuer gave for proofs
        self.issuer = issuer.rstrip("/")
        self._issuers = (self.issuer, issuer)  # some end with a slash, and some people add one
        self.client_id = client_id
        self._secret = client_secret
        self._http = http or httpx.AsyncClient(timeout=REQUEST_TIMEOUT_SECONDS)
        self._owns_http = http is None
        self._metadata: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection pool unless it was handed in."""
        if self._owns_http:
            await self._http.aclose()

    async def metadata(self) -> dict[str, Any]:
        """Return the issuer's discovery document, fetched once."""
        if self._metadata is None:
            document = await self._get_json(self.issuer.rstrip("/") + DISCOVERY_PATH)
            # RFC 8414 section 3.3: a document that names another issuer must not be used.
            if document.get("issuer") not in self._issuers:
                raise ServerUnavailable(f"{self.issuer} says it is {document.get('issuer')!r}; correct EVS_AUTH_URL")
            self._metadata, self.issuer = document, str(document["issuer"])
        return self._metadata

    async def begin_authorization(
        self, *, redirect_uri: str, scope: str, resources: Iterable[str] = (), **parameters: str
    ) -> PendingAuthorization:
        """Return where to send the person's browser and what to remember until they come back."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        query = [
            ("response_type", "code"),
            ("client_id", self.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", scope),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", code_challenge(verifier)),
            ("code_challenge_method", "S256"),
            *(("resource", resource) for resource in resources),
            *parameters.items(),
        ]
        if self.proof_key is not None:
            query.append(("dpop_jkt", self.proof_key.thumbprint))  # RFC 9449 section 10: the code is bound, too
        endpoint = await self._endpoint("authorization_endpoint")
        return PendingAuthorization(_with_query(endpoint, query), redirect_uri, state, nonce, verifier)

    async def finish_authorization(
        self, pending: PendingAuthorization, answer: Mapping[str, str], *, resource: str | None = None
    ) -> TokenSet:
        """Check the answer that came to the redirect URI and exchange its code for tokens.

        Raises `ResponseForged` for an answer to somebody else's request, `OAuthError` for a refusal.
        """
        await self.metadata()  # which says how the issuer writes its name
        check_answer(answer, state=pending.state, issuer=self.issuer)
        return await self.exchange_code(
            answer["code"], redirect_uri=pending.redirect_uri, verifier=pending.verifier, resource=resource
        )

    async def exchange_code(
        self, code: str, *, redirect_uri: str, verifier: str, resource: str | None = None
    ) -> TokenSet:
        """Exchange an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
        return await self.request_token(
            grant_type="authorization_code",
            code=code,
            redirect_uri=redirect_uri,
            code_verifier=verifier,
            resource=resource,
        )

    async def refresh(
        self,
        refresh_token: str,
        *,
        scope: str | None = None,
        resource: str | None = None,
        idempotency_key: str | None = None,
    ) -> TokenSet:
        """Get new tokens; the old refresh token is used up whatever happens.

        Where the answer is lost, whoever kept the `idempotency_key` (by chance, for this refresh token alone) asks with
        it again, however late; without it that is a theft after ten seconds.
        """
        return await self.request_token(
            idempotency_key=idempotency_key,
            grant_type="refresh_token",
            refresh_token=refresh_token,
            scope=scope,
            resource=resource,
        )

    async def client_credentials(self, *, scope: str = "", resource: str | None = None) -> TokenSet:
        """Get a token for the client itself."""
        return await self.request_token(grant_type="client_credentials", scope=scope or None, resource=resource)

    async def device_authorization(self, *, scope: str, resources: Iterable[str] = ()) -> DeviceAuthorization:
        """Begin a sign-in that the person completes on another device."""
        url = await self._endpoint("device_authorization_endpoint")
        answer = await self._post(url, [("scope", scope), *(("resource", resource) for resource in resources)])
        return DeviceAuthorization(
            device_code=answer["device_code"],
            user_code=answer["user_code"],
            verification_uri=answer["verification_uri"],
            verification_uri_complete=answer.get("verification_uri_complete", answer["verification_uri"]),
            expires_in=int(answer["expires_in"]),
            interval=int(answer.get("interval", 5)),
        )

    async def poll_device(self, authorization: DeviceAuthorization, *, resource: str | None = None) -> TokenSet:
        """Wait until the person has decided; raises `OAuthError` `access_denied` or `expired_token`."""
        interval = float(authorization.interval)
        deadline = time.monotonic() + authorization.expires_in
        while time.monotonic() < deadline:
            await asyncio.sleep(interval)
            try:
                return await self.request_token(
                    grant_type=DEVICE_GRANT, device_code=authorization.device_code, resource=resource
                )
            except OAuthError as error:
                if error.error == "slow_down":  # RFC 8628 section 3.5
                    interval += SLOW_DOWN_SECONDS
                elif error.error != "authorization_pending":
                    raise
            except ServerUnavailable:
                interval *= 2  # RFC 8628 section 3.5: back off when the connection times out
        raise OAuthError("expired_token", "nobody confirmed the code in time; begin again")

    async def revoke(self, token: str) -> None:
        """Revoke a token; revoking a refresh token ends everything that came from it."""
        await self._post(await self._endpoint("revocation_endpoint"), [("token", token)])

    async def introspect(self, token: str) -> dict[str, Any]:
        """Ask the issuer about a token (RFC 7662)."""
        return await self._post(await self._endpoint("introspection_endpoint"), [("token", token)])

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """Return the claims about the person who holds `access_token`."""
        url = await self._endpoint("userinfo_endpoint")
        key = self.proof_key
        bearer = {"Authorization": f"Bearer {access_token}"}
        return await self._get_json(url, headers=bearer if key is None else key.headers("GET", url, access_token))

    async def end_session_url(
        self, *, id_token: str | None = None, post_logout_redirect_uri: str | None = None, state: str | None = None
    ) -> str:
        """Return where to send the browser to sign out everywhere (RP-Initiated Logout 1.0)."""
        query = {
            "client_id": self.client_id,
            "id_token_hint": id_token,
            "post_logout_redirect_uri": post_logout_redirect_uri,
            "state": state,
        }
        given = {name: value for name, value in query.items() if value}
        return _with_query(await self._endpoint("end_session_endpoint"), list(given.items()))

    async def request_token(self, *, idempotency_key: str | None = None, **parameters: str | None) -> TokenSet:
        """Ask the token endpoint; parameters that are None are left out."""
        given = [(name, value) for name, value in parameters.items() if value is not None]
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        answer = await self._ask_for_token(await self._endpoint("token_endpoint"), given, headers)
        wanted = "Bearer" if self.proof_key is None else "DPoP"
        if str(answer.get("token_type", "")).lower() != wanted.lower() or "access_token" not in answer:
            raise ServerUnavailable(f"the token endpoint's answer must be a {wanted} token")
        return TokenSet.of(answer, requested_scope=parameters.get("scope") or "")

    async def post_to(self, endpoint: str, form: list[tuple[str, str]]) -> dict[str, Any]:
        """Post a form to an endpoint that discovery names, as this client; raises `OAuthError` for a refusal."""
        return await self._post(await self._endpoint(endpoint), form)

    async def _endpoint(self, name: str) -> str:
        url = (await self.metadata()).get(name)
        if not isinstance(url, str):
            raise ServerUnavailable(f"{self.issuer} does not offer {name}")
        if not url.startswith(("https://", self.issuer.partition("//")[0] + "//")):
            # Secrets go there, and a browser would hand another scheme on to whatever program it is for.
            raise ServerUnavailable(f"the {name} of {self.issuer} must be reached as the issuer is, or by https")
        return url

    async def _ask_for_token(self, url: str, form: list[tuple[str, str]], headers: dict[str, str]) -> dict[str, Any]:
        """Ask, with a proof where there is a key; a second time where the issuer wants its nonce in it (section 8)."""
        key = self.proof_key
        if key is None:
            return await self._post(url, form, headers)
        try:
            return await self._post(url, form, headers | {"DPoP": key.proof("POST", url, nonce=self._nonce)})
        except OAuthError as error:
            if error.error != "use_dpop_nonce":
                raise
            return await self._post(url, form, headers | {"DPoP": key.proof("POST", url, nonce=self._nonce)})

    async def _post(
        self, url: str, form: list[tuple[str, str]], more_headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Post a form as this client; raises `OAuthError` for a refusal."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        headers |= more_headers or {}
        if self._secret is None:
            form = [*form, ("client_id", self.client_id)]
        else:
            headers["Authorization"] = basic_authorization(self.client_id, self._secret)
        try:
            answer = await self._http.post(url, content=urlencode(form), headers=headers)
        except httpx.HTTPError as error:
            raise ServerUnavailable(f"{self.issuer} does not answer: {error}; is it running?") from error
        self._nonce = answer.headers.get("dpop-nonce", self._nonce)
        return _read_answer(answer)

    async def _get_json(self, url: str, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = await self._http.get(url, headers=headers)
        except httpx.HTTPError as error:
            raise ServerUnavailable(f"{self.issuer} does not answer: {error}; is it running?") from error
        return _read_answer(answer)


def code_challenge(verifier: str) -> str:
    """BASE64URL(SHA256(ASCII(verifier))), RFC 7636 section 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def basic_authorization(client_id: str, secret: str) -> str:
    """RFC 6749 section 2.3.1: both parts are form-encoded before HTTP Basic joins them."""
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def check_answer(answer: Mapping[str, str], *, state: str, issuer: str) -> None:
    """Check an authorization response before anything in it is used.

    Raises `ResponseForged` when it answers another request (RFC 6749 section 10.12) or comes from another
    issuer (RFC 9207 section 2.4), `OAuthError` when it is a refusal.
    """
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        raise ResponseForged("the answer's state is not the one we sent; begin the sign-in again")
    if answer.get("iss") != issuer:
        raise ResponseForged(f"the answer must come from {issuer}, got {answer.get('iss')!r}")
    if "error" in answer:
        raise OAuthError.of(answer)
    if "code" not in answer:
        raise ResponseForged("the answer carries neither a code nor an error")


def _with_query(endpoint: str, parameters: list[tuple[str, str]]) -> str:
    """RFC 6749 section 3.1: an endpoint may have a query of its own, which stays."""
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"


def _read_answer(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json() if answer.content else {}
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServerUnavailable(f"{answer.request.url} must answer with a JSON object, got status {answer.status_code}")
    if answer.is_success:
        return body
    if "error" in body:
        raise OAuthError.of(body, status=answer.status_code)
    raise ServerUnavailable(f"{answer.request.url} answered {answer.status_code}")
