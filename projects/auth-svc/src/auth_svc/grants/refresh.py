"""The refresh grant (RFC 6749 section 6), with rotation and reuse detection (RFC 9700 section 4.14.2)."""

from authlib.oauth2.rfc6749 import grants

from auth_svc import opaque
from auth_svc.clients.client import ANY_CLIENT
from auth_svc.people.accounts import Account
from auth_svc.protocol.decision import Decision
from auth_svc.protocol.effects import KillFamily, UseRefreshToken
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.token_rows import RefreshToken


class RefreshGrant(grants.RefreshTokenGrant):  # type: ignore[misc]
    """RFC 6749 section 6, with rotation and reuse detection (RFC 9700 section 4.14.2)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY_CLIENT
    INCLUDE_NEW_REFRESH_TOKEN = True
    server: Decision

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken | None:
        """The refresh token, if it may be used now."""
        row, client = self.server.rows.refresh_token, self.server.rows.client
        if row is None or client is None or not row.check_client(client):
            return None
        if row.used_at is not None and not self._was_just_used(row):
            self.server.effects.append(KillFamily(row.family.id, "a refresh token was used twice"))
            return None
        if self.server.now >= row.expires_at or row.family.revoked_at is not None or row.is_kept_from(client):
            return None
        if row.family.key_thumbprint is not None and not self.server.holds(row.family.key_thumbprint):
            return None  # RFC 9449 section 5: a public client's refresh tokens are for the holder of its key
        if self.server.person(row.family) is None:
            return None  # `authenticate_user` would make it an `invalid_request`
        self.server.family = row.family
        self._salt = row.salt or opaque.new_salt(self.request.idempotency_key)
        self.server.refresh_token = opaque.derive(refresh_token, self._salt)
        self.server.is_repeat = row.used_at is not None
        return row

    def authenticate_user(self, refresh_token: RefreshToken) -> Account | None:
        """The person."""
        return self.server.person(refresh_token.family)

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """List the token's use."""
        if not self.server.is_repeat:
            grace = self.server.issuer.refresh_grace_seconds * MICROS
            use = UseRefreshToken(refresh_token.digest, refresh_token.family.id, self._salt, grace)
            self.server.effects.append(use)

    def _was_just_used(self, row: RefreshToken) -> bool:
        """Whether this is another tab of the same browser, or whoever asked before and lost the answer.

        All of them are told the same successor, so the family has one line of tokens, and a thief's use of an older
        one still shows. Once the successor was used nobody lost it; and after the grace only whoever has the very key
        that they asked with is no thief: it was made for that question and went to nobody else.
        """
        successor, used_at, grace = self.server.rows.successor, row.used_at, self.server.issuer.refresh_grace_seconds
        if successor is None or successor.used_at is not None or used_at is None:
            return False
        key = self.request.idempotency_key
        if grace and key and opaque.matches(key, opaque.idempotency_digest(row.salt)):
            return True
        return abs(self.server.now - used_at) < grace * MICROS  # a clock that was set back gives no more
