"""The grants: Authlib's, each told which rows to look at and which effects to list."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from authlib.oauth2.rfc6749 import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    UnauthorizedClientError,
    grants,
)
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE, DeviceAuthorizationEndpoint, DeviceCodeGrant

from auth_svc import families, opaque
from auth_svc.accounts import Account
from auth_svc.clients import Client
from auth_svc.decision import Decision
from auth_svc.effects import (
    DevicePolled,
    KillFamily,
    SaveCode,
    SaveDeviceCode,
    StartFamily,
    UseCode,
    UseDeviceCode,
    UseRefreshToken,
)
from auth_svc.families import MICROS
from auth_svc.protocol_request import ProtocolRequest
from auth_svc.token_rows import Code, DeviceCode, RefreshToken

CODE_SECONDS = 60
DEVICE_SECONDS = 600
DEVICE_INTERVAL_SECONDS = 5
# RFC 8628 section 6.1: no vowels (no words), nothing that looks alike.
USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
ANY_CLIENT = ["client_secret_basic", "client_secret_post", "none"]
CONFIDENTIAL = ["client_secret_basic", "client_secret_post"]


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
    server: Decision

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
        family = families.opened(
            user_id=request.user.id,
            client_id=request.client.id,
            scope=request.scope,
            resources=server.resources,
            session_id=server.session_id,
            authenticated_at=server.authenticated_at,
            now=server.now,
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
        if "redirect_uri" not in self.request.form:
            return replace(row, redirect_uri="")  # OAuth 2.1 section 10.2: the challenge does its work
        return row

    def authenticate_user(self, authorization_code: Code) -> Account | None:
        """The person, unless disabled meanwhile."""
        self.server.family = authorization_code.family
        return enabled(self.server.rows.account)

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """List the code's use."""
        self.server.effects.append(UseCode(authorization_code.digest, authorization_code.family.id))


class RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc]
    """RFC 6749 section 6, with rotation and reuse detection (RFC 9700 section 4.14.2)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY_CLIENT
    INCLUDE_NEW_REFRESH_TOKEN = True
    server: Decision

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
        if enabled(self.server.rows.account) is None:
            return None  # `authenticate_user` would make it an `invalid_request`
        self.server.family = row.family
        return row

    def authenticate_user(self, refresh_token: RefreshToken) -> Account | None:  # noqa: ARG002
        """The person."""
        return enabled(self.server.rows.account)

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """List the token's use."""
        self.server.effects.append(UseRefreshToken(refresh_token.digest, refresh_token.family.id))


class ClientCredentialsGrant(grants.ClientCredentialsGrant):  # type: ignore[misc]
    """RFC 6749 section 4.4."""

    TOKEN_ENDPOINT_AUTH_METHODS = CONFIDENTIAL
    server: Decision

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
    server: Decision

    def query_device_credential(self, device_code: str) -> "_PolledDevice":  # noqa: ARG002
        """The device code, if this client may ask for it."""
        row, client = self.server.rows.device_code, self.server.rows.client
        if row is None or client is None or row.client_id != client.id or row.status == "consumed":
            raise InvalidGrantError("Invalid 'device_code' in request.")
        return _PolledDevice(row, self.server.now)

    def query_user_grant(self, user_code: str) -> tuple[Account, bool] | None:  # noqa: ARG002
        """What the person decided, or None as long as they have not."""
        row, account = self.server.rows.device_code, enabled(self.server.rows.account)
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
    server: Decision

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
        client = self.server.rows.client
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


def enabled(account: Account | None) -> Account | None:
    return account if account is not None and account.enabled else None
