"""Decide: Authlib's grants run over rows that were loaded, and list effects instead of having them.

One `Protocol` serves one request. It does no I/O: what Authlib would look up is in `rows`, what it would
save or revoke is appended to `effects`, and `auth_svc.effects.commit` does all of that in one transaction.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    InvalidClientError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    OAuth2Request,
    UnauthorizedClientError,
    UnsupportedResponseTypeError,
    grants,
)
from authlib.oauth2.rfc6749.requests import OAuth2Payload
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE, DeviceAuthorizationEndpoint, DeviceCodeGrant
from authlib.oidc.core.grants.code import OpenIDToken

from auth_svc import opaque
from auth_svc.accounts import Account
from auth_svc.clients import Client
from auth_svc.effects import (
    DevicePolled,
    Effect,
    KillFamily,
    SaveCode,
    SaveDeviceCode,
    SaveRefreshToken,
    StartFamily,
    TellIssued,
    UseCode,
    UseDeviceCode,
    UseRefreshToken,
)
from auth_svc.families import MICROS, Family
from auth_svc.issuer import ID_TOKEN_SECONDS, Issuer
from auth_svc.resources import TargetInvalid
from auth_svc.token_rows import Code, DeviceCode, RefreshToken, TokenRows
from lib_auth.events import TokenIssuedData
from lib_auth.jwks import ALGORITHM

CODE_SECONDS = 60
REFRESH_SECONDS = 30 * 24 * 3600
DEVICE_SECONDS = 600
DEVICE_INTERVAL_SECONDS = 5
# RFC 8628 section 6.1: no vowels (no words), nothing that looks alike.
USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
ANY_CLIENT = ["client_secret_basic", "client_secret_post", "none"]
CONFIDENTIAL = ["client_secret_basic", "client_secret_post"]


class TargetInvalidError(OAuth2Error):  # type: ignore[misc]
    """RFC 8707 section 2."""

    error = "invalid_target"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client; a redirect has its `location` and no body."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Payload(OAuth2Payload):  # type: ignore[misc]
    """The parameters of a request, and each as often as it came."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._lists: dict[str, list[str]] = {}
        for name, value in pairs:
            self._lists.setdefault(name, []).append(value)
        self._data = {name: values[0] for name, values in self._lists.items()}

    @property
    def data(self) -> dict[str, str]:
        """The first value of each parameter."""
        return self._data

    @property
    def datalist(self) -> dict[str, list[str]]:
        """All values of each parameter."""
        return self._lists


class ProtocolRequest(OAuth2Request):  # type: ignore[misc]
    """A request as Authlib sees it."""

    def __init__(self, method: str, pairs: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> None:
        # Whether http is acceptable was decided at start-up; Authlib's switch for it is process-wide.
        super().__init__(method, "https://issuer.invalid/", headers=headers)
        self.payload = Payload(pairs)

    @property
    def form(self) -> dict[str, str]:
        """The parameters."""
        data: dict[str, str] = self.payload.data
        return data

    @property
    def args(self) -> dict[str, str]:
        """The parameters."""
        return self.form


class Protocol(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server over the rows of one request."""

    def __init__(self, issuer: Issuer, rows: TokenRows, now: int) -> None:
        super().__init__()
        self.issuer = issuer
        self.rows = rows
        self.now = now
        self.effects: list[Effect] = []
        self.family: Family | None = None  # whose tokens this request is about, once that is certain
        self.resources: tuple[str, ...] = ()  # what a person is allowing right now
        self.session_id = ""
        self.authenticated_at = 0
        self.register_grant(CodeGrant, [RequiredChallenge(), IdTokens()])
        self.register_grant(RefreshGrant, [IdTokens()])
        self.register_grant(DeviceGrant, [IdTokens()])
        self.register_grant(ClientCredentialsGrant)
        self.register_endpoint(DeviceAuthorization)

    def query_client(self, client_id: str) -> Client | None:
        """The client that was loaded, if it is the one in question."""
        client = self.rows.client
        return client if client is not None and client.id == client_id else None

    def get_authorization_grant(self, request: ProtocolRequest) -> Any:
        """Only `code`; Authlib would put what was sent into a description that refuses some characters."""
        if request.payload.response_type == "code":
            return super().get_authorization_grant(request)
        client, uri = self.rows.client, request.payload.redirect_uri
        known = uri if client is not None and uri and client.check_redirect_uri(uri) else None
        if not request.payload.response_type:
            raise InvalidRequestError("Missing 'response_type' in request.", redirect_uri=known)
        raise UnsupportedResponseTypeError("that", "Only response_type=code is supported.", redirect_uri=known)

    def create_oauth2_request(self, request: Any) -> Any:
        """Requests come as `ProtocolRequest`."""
        return request

    def handle_response(self, status: int, body: Any, headers: Sequence[tuple[str, str]]) -> Answer:
        """Keep what Authlib answers."""
        return Answer(status, dict(body) if body else {}, {name.lower(): value for name, value in headers})

    def handle_error_response(self, request: ProtocolRequest, error: OAuth2Error) -> Answer:
        """One text for every way in which a client is not who it says: no oracle for which clients exist."""
        if isinstance(error, InvalidClientError):
            basic = request.headers.get("authorization", "").lower().startswith("basic")
            error = InvalidClientError("Client authentication failed.", status_code=401 if basic else 400)
        answer: Answer = self.handle_response(*error(None))
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
        family = self.family
        scopes = frozenset((scope or "").split()) & (family.scopes if family else client.scopes)
        access = self.issuer.access_token(
            client,
            audience=self.audience(client),
            scopes=scopes,
            now=self.now,
            account=user,
            family=family,
        )
        self.effects.append(TellIssued(_issued(access, client, user, grant_type)))
        token: dict[str, Any] = {
            "token_type": "Bearer",
            "access_token": access.text,
            "expires_in": access.lifetime,
            "scope": access.scope,
        }
        if include_refresh_token and family is not None:
            token["refresh_token"] = refresh_token = opaque.new_secret()
            expires_at = self.now + REFRESH_SECONDS * MICROS
            self.effects.append(SaveRefreshToken(opaque.digest(refresh_token), family.id, expires_at))
        return token

    def audience(self, client: Client) -> str:  # noqa: ARG002
        """The one resource the token is for (RFC 8707 section 2.2)."""
        requested = self.request.payload.datalist.get("resource", [])
        if len(requested) > 1:
            raise TargetInvalidError("A token is for one resource: send 'resource' once.")
        try:
            chosen = self.issuer.resources.choose(requested)[0]
        except TargetInvalid as error:
            raise TargetInvalidError(str(error)) from error
        if self.family is None:
            return chosen
        if not requested:
            return self.family.resources[0]
        if chosen not in self.family.resources:
            raise TargetInvalidError("The person did not allow this resource.")
        return chosen

    def penalties(self) -> list[Effect]:
        """What happens although the request is refused."""
        return [effect for effect in self.effects if isinstance(effect, KillFamily | DevicePolled)]

    def token(self, request: ProtocolRequest) -> Answer:
        """Decide a token request."""
        self.request = request
        answer: Answer = self.create_token_response(request)
        return answer

    def device_authorization(self, request: ProtocolRequest) -> Answer:
        """Decide a device authorization request."""
        answer: Answer = self.create_endpoint_response(DeviceAuthorization.ENDPOINT_NAME, request)
        return answer


class RequiredChallenge(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256 for every client (OAuth 2.1 section 4.1.1); `plain` protects nobody."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]  # noqa: RUF012 - Authlib's attribute

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """Refuse a request without an S256 challenge."""
        data = grant.request.payload.data
        if "code_challenge" not in data:
            raise InvalidRequestError("Missing 'code_challenge': PKCE is required.")
        # RFC 7636 section 4.3: a missing method means `plain`.
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("'code_challenge_method' must be S256.")
        super().validate_code_challenge(grant, redirect_uri)


class CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
    """RFC 6749 section 4.1."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY_CLIENT
    server: Protocol

    @staticmethod
    def validate_authorization_redirect_uri(request: ProtocolRequest, client: Client) -> str:
        """RFC 9700 section 4.1.3: exactly what was registered, and never left out."""
        redirect_uri: str | None = request.payload.redirect_uri
        if redirect_uri is None or not client.check_redirect_uri(redirect_uri):
            raise InvalidRequestError("The 'redirect_uri' must be one that is registered for the client.")
        return redirect_uri

    @staticmethod
    def validate_no_multiple_request_parameter(request: ProtocolRequest) -> None:
        """What decides where an error goes must be there once; the endpoint checks the others afterwards."""
        for name in ("client_id", "redirect_uri", "response_type"):
            if len(request.payload.datalist.get(name, [])) > 1:
                raise InvalidRequestError(f"Multiple '{name}' in request.")

    def generate_authorization_code(self) -> str:
        """256 bits."""
        return opaque.new_secret()

    def save_authorization_code(self, code: str, request: ProtocolRequest) -> None:
        """List the code and the family it opens."""
        server, data = self.server, request.payload.data
        scope: str = request.scope
        family = Family(
            id=opaque.new_id(),
            user_id=request.user.id,
            client_id=request.client.id,
            session_id=None if "offline_access" in scope.split() else server.session_id,
            scope=scope,
            resources=server.resources,
            authenticated_at=server.authenticated_at,
            created_at=server.now,
        )
        server.effects.append(StartFamily(family, server.session_id))
        server.effects.append(
            SaveCode(
                digest=opaque.digest(code),
                family_id=family.id,
                redirect_uri=data["redirect_uri"],
                challenge=data["code_challenge"],
                nonce=data.get("nonce"),
                expires_at=server.now + CODE_SECONDS * MICROS,
            )
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:  # noqa: ARG002
        """The code, if this client may redeem it now."""
        row = self.server.rows.code
        if row is None or row.family.client_id != client.id:
            return None
        if row.used_at is not None:
            # RFC 6749 section 4.1.2: a code used twice takes its tokens with it.
            self.server.effects.append(KillFamily(row.family.id, "an authorization code was used twice"))
            return None
        if self.server.now >= row.expires_at or row.family.revoked_at is not None:
            return None
        return row

    def authenticate_user(self, authorization_code: Code) -> Account | None:
        """The person, unless disabled meanwhile."""
        self.server.family = authorization_code.family
        return _enabled(self.server.rows.account)

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """List the code's use."""
        self.server.effects.append(UseCode(authorization_code.digest, authorization_code.family.id))


class RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc]
    """RFC 6749 section 6, with rotation and reuse detection (RFC 9700 section 4.14.2)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY_CLIENT
    INCLUDE_NEW_REFRESH_TOKEN = True
    server: Protocol

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken | None:  # noqa: ARG002
        """The refresh token, if it may be used now."""
        row, client = self.server.rows.refresh_token, self.server.rows.client
        if row is None or client is None or not row.check_client(client):
            return None
        if row.used_at is not None:
            self.server.effects.append(KillFamily(row.family.id, "a refresh token was used twice"))
            return None
        if self.server.now >= row.expires_at or row.family.revoked_at is not None:
            return None
        if _enabled(self.server.rows.account) is None:
            return None
        self.server.family = row.family
        return row

    def authenticate_user(self, refresh_token: RefreshToken) -> Account | None:  # noqa: ARG002
        """The person."""
        return _enabled(self.server.rows.account)

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """List the token's use."""
        self.server.effects.append(UseRefreshToken(refresh_token.digest, refresh_token.family.id))


class ClientCredentialsGrant(grants.ClientCredentialsGrant):  # type: ignore[misc]
    """RFC 6749 section 4.4."""

    TOKEN_ENDPOINT_AUTH_METHODS = CONFIDENTIAL
    server: Protocol

    def validate_token_request(self) -> None:
        """No scope means all the client has; asking for none of it is an error."""
        super().validate_token_request()
        requested = frozenset((self.request.payload.scope or "").split())
        allowed = (requested or self.client.scopes) & self.client.scopes
        if requested and not allowed:
            raise InvalidScopeError
        self.request.payload.data["scope"] = " ".join(sorted(allowed))


class DeviceGrant(DeviceCodeGrant):  # type: ignore[misc]
    """RFC 8628 section 3.4."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY_CLIENT
    server: Protocol

    def query_device_credential(self, device_code: str) -> "_PolledDevice":  # noqa: ARG002
        """The device code, if this client may ask for it."""
        row, client = self.server.rows.device_code, self.server.rows.client
        if row is None or client is None or row.client_id != client.id or row.status == "consumed":
            raise InvalidGrantError("Invalid 'device_code' in request.")
        return _PolledDevice(row, self.server.now)

    def query_user_grant(self, user_code: str) -> tuple[Account, bool] | None:  # noqa: ARG002
        """What the person decided, or None as long as they have not."""
        row, account = self.server.rows.device_code, _enabled(self.server.rows.account)
        if row is None or row.status == "pending":
            return None
        if row.status == "denied" or account is None or row.family is None or row.family.revoked_at is not None:
            return _NOBODY, False
        self.server.family = row.family
        self.server.effects.append(UseDeviceCode(row.digest, row.family.id))
        return account, True

    def should_slow_down(self, credential: "_PolledDevice") -> bool:
        """Section 3.5: a device that asks too early waits five seconds longer from now on."""
        row = credential.row
        early = row.polled_at is not None and self.server.now < row.polled_at + row.interval_seconds * MICROS
        interval = row.interval_seconds + (DEVICE_INTERVAL_SECONDS if early else 0)
        self.server.effects.append(DevicePolled(row.digest, interval))
        return early


class DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]
    """RFC 8628 section 3.1."""

    CLIENT_AUTH_METHODS = ANY_CLIENT
    EXPIRES_IN = DEVICE_SECONDS
    INTERVAL = DEVICE_INTERVAL_SECONDS
    server: Protocol

    def authenticate_client(self, request: ProtocolRequest) -> Client:
        """The client, which must be one that may use this grant."""
        client: Client = super().authenticate_client(request)
        if not client.check_grant_type(DEVICE_CODE_GRANT_TYPE):
            raise UnauthorizedClientError("The client may not use the device grant.")
        return client

    def generate_user_code(self) -> str:
        """Eight letters, 34 bits: with ten minutes and a rate limit nobody guesses one."""
        letters = [secrets.choice(USER_CODE_LETTERS) for _ in range(8)]
        return "".join(letters[:4]) + "-" + "".join(letters[4:])

    def generate_device_code(self) -> str:
        """256 bits."""
        return opaque.new_secret()

    def get_verification_uri(self) -> str:
        """Where the person goes."""
        return self.server.issuer.url + "/device"

    def save_device_credential(self, client_id: str, scope: str | None, data: Mapping[str, Any]) -> None:
        """List the device code."""
        client = self.server.query_client(client_id)
        allowed = client.get_allowed_scope(scope) if client else None
        if allowed is None:
            raise InvalidScopeError
        self.server.effects.append(
            SaveDeviceCode(
                digest=opaque.digest(data["device_code"]),
                user_code=data["user_code"],
                client_id=client_id,
                scope=allowed,
                resources=self.server.resources,
                interval_seconds=self.INTERVAL,
                expires_at=self.server.now + self.EXPIRES_IN * MICROS,
            )
        )


class IdTokens(OpenIDToken):  # type: ignore[misc]
    """OpenID Connect Core section 2: says who signed in, when, and to which client."""

    def process_token(self, grant: Any, response: Any) -> Any:
        """Add the ID token where the person allowed `openid`; the grant's request knows the rest."""
        self.server: Protocol = grant.server
        return super().process_token(grant, response)

    def resolve_client_private_key(self, client: Client) -> Any:  # noqa: ARG002
        """The active key."""
        return self.server.issuer.keys.active

    def get_client_algorithm(self, client: Client) -> str:  # noqa: ARG002
        """ES256 for everybody."""
        return ALGORITHM

    def get_encode_header(self, client: Client) -> dict[str, str]:  # noqa: ARG002
        """Name the key: clients keep more than one during a rotation."""
        return {"alg": ALGORITHM, "typ": "JWT", "kid": self.server.issuer.keys.key_id}

    def get_client_claims(self, client: Client) -> dict[str, Any]:
        """What every ID token says."""
        server, seconds = self.server, self.server.now // MICROS
        claims: dict[str, Any] = {
            "iss": server.issuer.url,
            "aud": client.id,
            "iat": seconds,
            "exp": seconds + ID_TOKEN_SECONDS,
        }
        if server.family is not None:
            claims["auth_time"] = server.family.authenticated_at // MICROS
            if server.family.session_id is not None:
                claims["sid"] = server.family.session_id
        return claims

    def get_authorization_code_claims(self, authorization_code: Code) -> dict[str, Any]:
        """What ties it to one authorization request."""
        return {"nonce": authorization_code.nonce} if authorization_code.nonce else {}

    def generate_user_info(self, user: Account, scope: str) -> dict[str, Any]:
        """Who it is."""
        return self.server.issuer.userinfo(user, frozenset(scope.split()))


class _PolledDevice:
    """A device code with the time it is asked at, as Authlib's grant wants it."""

    def __init__(self, row: DeviceCode, now: int) -> None:
        self.row = row
        self._now = now
        self.get_client_id = row.get_client_id
        self.get_scope = row.get_scope
        self.get_user_code = row.get_user_code

    def is_expired(self) -> bool:
        """Whether it is too late."""
        return self._now >= self.row.expires_at


_NOBODY = Account("", "", None, None, frozenset(), 0, 0, 0)


def _enabled(account: Account | None) -> Account | None:
    return account if account is not None and account.enabled else None


def _issued(access: Any, client: Client, user: Account | None, grant_type: str) -> TokenIssuedData:
    return TokenIssuedData(
        token=access.id,
        client=client.id,
        user=user.id if user else None,
        grant_type=grant_type,
        audience=access.audience,
        scope=access.scope,
        expires_at=access.expires_at,
    )
