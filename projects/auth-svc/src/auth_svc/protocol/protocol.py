"""Decide: Authlib's grants run over rows that were loaded, and list effects instead of having them.

One `Protocol` serves one request. It does no I/O: what Authlib would look up is in `rows`, what it would
save or revoke is appended to `effects`, and `auth_svc.protocol.effects.commit` does all of that in one transaction.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from authlib.oauth2.rfc6749 import (
    ClientAuthentication,
    InvalidClientError,
    InvalidRequestError,
    OAuth2Error,
    UnsupportedGrantTypeError,
    UnsupportedResponseTypeError,
)

from auth_svc import opaque
from auth_svc.clients.assertion import authenticate_by_key
from auth_svc.clients.client import BY_KEY, Client
from auth_svc.grants.client_credentials import ClientCredentialsGrant
from auth_svc.grants.code import CodeGrant, RequiredChallenge
from auth_svc.grants.device import DeviceAuthorization, DeviceGrant
from auth_svc.grants.id_token import IdTokens
from auth_svc.grants.refresh import RefreshGrant
from auth_svc.grants.token_exchange import TokenExchangeGrant
from auth_svc.people.accounts import Account
from auth_svc.protocol.decision import Decision, TargetInvalidError
from auth_svc.protocol.effects import (
    BindKey,
    DevicePolled,
    Effect,
    KillFamily,
    SaveRefreshToken,
    TellIssued,
    UseClient,
    UseProof,
)
from auth_svc.protocol.families import MICROS, Family
from auth_svc.protocol.issuer import AccessToken
from auth_svc.protocol.nonces import WINDOW_SECONDS
from auth_svc.protocol.request import BASIC_CHALLENGE, Answer, ProtocolRequest
from auth_svc.rights.resources import TargetInvalid
from lib_auth.dpop import ProofRejected, read_proof
from lib_auth.events import TokenIssuedData

# Authlib's debug lines hold whole tokens; nothing secret goes into logs, at whatever level they are kept.
logging.getLogger("authlib").setLevel(logging.INFO)

USE_MICROS = 24 * 3600 * MICROS  # how exactly a registered client's row says when it last got a token
PROOF_KEPT_SECONDS = 3 * WINDOW_SECONDS  # longer than its nonce is good for


class ProofInvalidError(OAuth2Error):  # type: ignore[misc]
    """RFC 9449 section 5."""

    error = "invalid_dpop_proof"


class NonceNeededError(OAuth2Error):  # type: ignore[misc]
    """RFC 9449 section 8."""

    error = "use_dpop_nonce"


# Each grant with what extends it.
EXTENSIONS: Mapping[Any, Sequence[Any]] = {
    CodeGrant: (RequiredChallenge, IdTokens),
    RefreshGrant: (IdTokens,),
    DeviceGrant: (IdTokens,),
    ClientCredentialsGrant: (),
    TokenExchangeGrant: (),
}
GRANTS: Mapping[str, Any] = {grant.GRANT_TYPE: grant for grant in EXTENSIONS}


class Protocol(Decision):
    """A decision by the grants of this service."""

    def authenticate_client(self, request: ProtocolRequest, methods: Sequence[str], endpoint: str = "token") -> Client:
        """Return the client that proves who it is in one of these ways; raises `InvalidClientError`.

        What asks for the proof is not kept, as Authlib's own is: it knows this decision, and the two would hold each
        other, and all that the request brought, until a collection.
        """
        authentication = ClientAuthentication(self.query_client)
        authentication.register(BY_KEY, lambda _query, request: authenticate_by_key(self, request))
        client: Client = authentication(request, methods, endpoint)
        return client

    def query_client(self, client_id: str) -> Client | None:
        """The client that was loaded, if it is the one in question."""
        client = self.rows.client
        return client if client is not None and client.id == client_id else None

    def get_authorization_grant(self, request: ProtocolRequest) -> Any:
        """Only `code`; Authlib would put what was sent into a description that refuses some characters."""
        if request.payload.response_type == "code":
            return self._grant(CodeGrant, request)
        client, uri = self.rows.client, request.payload.redirect_uri
        known = uri if client is not None and uri and client.check_redirect_uri(uri) else None
        if not request.payload.response_type:
            raise InvalidRequestError("Missing 'response_type' in request.", redirect_uri=known)
        raise UnsupportedResponseTypeError("that", "Only response_type=code is supported.", redirect_uri=known)

    def get_token_grant(self, request: ProtocolRequest) -> Any:
        """The grant of the table that a token request asks for; Authlib's own would be made anew for each request."""
        grant_type = request.form["grant_type"]
        if grant_type not in GRANTS:
            raise UnsupportedGrantTypeError(grant_type)
        return self._grant(GRANTS[grant_type], request)

    def _grant(self, grant: Any, request: ProtocolRequest) -> Any:
        made = grant(request, self)
        for extension in EXTENSIONS[grant]:
            extension()(made)
        return made

    def create_oauth2_request(self, request: Any) -> Any:
        """Requests come as `ProtocolRequest`."""
        return request

    def handle_response(self, status: int, body: Any, headers: Sequence[tuple[str, str]]) -> Answer:
        """Keep what Authlib answers."""
        return Answer(status, dict(body) if body else {}, {name.lower(): value for name, value in headers})

    def handle_error_response(self, request: ProtocolRequest, error: OAuth2Error) -> Answer:
        """One text for every way in which a client is not who it says: no oracle for which clients exist."""
        if isinstance(error, InvalidClientError):
            basic = request.authorization.lower().startswith("basic")
            error = InvalidClientError("Client authentication failed.", status_code=401 if basic else 400)
        answer = self.handle_response(*error(None))
        if answer.status == 401:
            return replace(answer, headers={"www-authenticate": BASIC_CHALLENGE})
        return answer

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens: what happens is told by events."""

    def save_token(self, token: dict[str, Any], request: ProtocolRequest) -> None:
        """Nothing: `generate_token` has listed what is to be kept."""

    def generate_token(  # noqa: PLR0917 - Authlib's signature
        self,
        grant_type: str,
        client: Client,
        user: Account | None = None,
        scope: str | None = None,
        expires_in: int | None = None,  # noqa: ARG002 - a client's lifetime is in its row
        include_refresh_token: bool = True,  # noqa: FBT001, FBT002
    ) -> dict[str, Any]:
        """Sign the access token and list the refresh token that goes with it."""
        family, thumbprint = self.family, self.proof.thumbprint if self.proof else None
        if thumbprint is None and client.dpop_bound:
            raise ProofInvalidError("This client's tokens are bound to a key: send a DPoP proof.")
        scopes = frozenset((scope or "").split()) & (family.scopes if family else client.scopes)
        if self.rows.delegation is None:  # what acts for people elsewhere may do there what that resource says
            scopes &= client.scopes  # it may have had more when the person allowed it
        access = self.issuer.access_token(
            client,
            audience=self.audience(client),
            scopes=scopes,
            now=self.now,
            account=user,
            family=family,
            thumbprint=thumbprint,
            actor=self.actor,
        )
        actor = client.id if self.actor else None
        self.effects.append(TellIssued(_issued(access, client, user, grant_type, actor=actor)))
        if client.origin == "registered" and self.now - (client.granted_at or 0) > USE_MICROS:
            self.effects.append(UseClient(client.id))
        token: dict[str, Any] = {
            "token_type": "DPoP" if thumbprint else "Bearer",
            "access_token": access.text,
            "expires_in": access.lifetime,
            "scope": access.scope,
        }
        if include_refresh_token and family is not None:
            token["refresh_token"] = self._next_refresh_token(client, family)
        return token

    def _next_refresh_token(self, client: Client, family: Family) -> str:
        refresh_token = self.refresh_token or opaque.new_secret()
        if not self.is_repeat:
            expires_at = self.now + self.issuer.refresh_seconds * MICROS
            self.effects.append(SaveRefreshToken(opaque.digest(refresh_token), family.id, expires_at))
        if client.is_public and self.proof is not None and family.key_thumbprint is None:
            # RFC 9449 section 5: what nobody proves to be theirs is bound to the key that was proven.
            self.effects.append(BindKey(family.id, self.proof.thumbprint))
        return refresh_token

    def audience(self, client: Client) -> str:  # noqa: ARG002
        """The one resource the token is for (RFC 8707 section 2.2)."""
        requested = self.request.payload.datalist.get("resource", [])
        if len(requested) > 1:
            raise TargetInvalidError("A token is for one resource: send 'resource' once.")
        try:
            # What was allowed once may be gone: it has to be one of this installation's still.
            allowed = self.family.resources[:1] if self.family is not None else ()
            chosen = self.issuer.resources.choose(requested or allowed)[0]
        except TargetInvalid as error:
            raise TargetInvalidError(str(error)) from error
        if self.family is not None and chosen not in self.family.resources:
            raise TargetInvalidError("The person did not allow this resource.")
        return chosen

    def penalties(self) -> list[Effect]:
        """What happens although the request is refused."""
        return [effect for effect in self.effects if isinstance(effect, KillFamily | DevicePolled)]

    def token(self, request: ProtocolRequest) -> Answer:
        """Decide a token request."""
        self.request = request
        if "grant_type" not in request.form:
            return self.handle_error_response(request, InvalidRequestError("Missing 'grant_type' in request."))
        try:
            self.take_proof(request)
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        answer: Answer = self.create_token_response(request)
        return answer

    def take_proof(self, request: ProtocolRequest) -> None:
        """Check the DPoP proof, if there is one, and list its use.

        Raises `ProofInvalidError` and `NonceNeededError`.
        """
        if not request.proofs:
            return
        if len(request.proofs) > 1:
            raise ProofInvalidError("There must be one DPoP header.")
        try:
            proof = read_proof(request.proofs[0], method="POST", url=request.url)
        except ProofRejected as error:
            raise ProofInvalidError(str(error)) from error
        if proof.nonce is None or not self.issuer.nonces.is_good(proof.nonce):
            raise NonceNeededError("Make the DPoP proof with the nonce of the header DPoP-Nonce.")
        self.proof = proof
        self.effects.append(UseProof(proof.digest, self.now + PROOF_KEPT_SECONDS * MICROS))

    def device_authorization(self, request: ProtocolRequest) -> Answer:
        """Decide a device authorization request."""
        self.register_endpoint(DeviceAuthorization)
        answer: Answer = self.create_endpoint_response(DeviceAuthorization.ENDPOINT_NAME, request)
        return answer


def _issued(
    access: AccessToken, client: Client, user: Account | None, grant_type: str, *, actor: str | None
) -> TokenIssuedData:
    return TokenIssuedData(
        actor=actor,
        token=access.id,
        client=client.id,
        user=user.id if user else None,
        grant_type=grant_type,
        audience=access.audience,
        scope=access.scope,
        expires_at=access.expires_at,
    )
