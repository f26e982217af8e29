"""The refresh grant (RFC 6749 section 6), with rotation and reuse detection (RFC 9700 section 4.14.2)."""

from authlib.oauth2.rfc6749 import grants

from auth_svc.accounts import Account, enabled
from auth_svc.clients import ANY_CLIENT
from auth_svc.decision import Decision
from auth_svc.effects import KillFamily, UseRefreshToken
from auth_svc.token_rows import RefreshToken


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
