"""The client credentials grant (RFC 6749 section 4.4)."""

from authlib.oauth2.rfc6749 import InvalidScopeError, grants

from auth_svc.clients.client import CONFIDENTIAL
from auth_svc.protocol.decision import Decision


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
