"""The device grant (RFC 8628): a device that shows a code, a person who types it elsewhere."""

from collections.abc import Mapping
from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidScopeError, UnauthorizedClientError
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE, DeviceAuthorizationEndpoint, DeviceCodeGrant

from auth_svc import opaque
from auth_svc.clients.client import ANY_CLIENT, Client
from auth_svc.people.accounts import Account
from auth_svc.protocol.decision import Decision
from auth_svc.protocol.device_codes import DEVICE_SECONDS, new_user_code
from auth_svc.protocol.effects import DevicePolled, SaveDeviceCode, UseDeviceCode
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.request import ProtocolRequest
from auth_svc.protocol.token_rows import DeviceCode

DEVICE_INTERVAL_SECONDS = 5


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
        row = self.server.rows.device_code
        if row is None or row.status == "pending":
            return None
        if row.status == "denied" or row.family is None or row.family.revoked_at is not None:
            return _NOBODY, False
        if (account := self.server.person(row.family)) is None:
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
        """What the person types."""
        return new_user_code()

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
                address=self.server.address,
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
