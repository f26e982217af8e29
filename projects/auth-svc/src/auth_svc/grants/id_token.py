"""ID tokens: who signed in, when, and to which client (OpenID Connect Core section 2)."""

from collections.abc import Mapping
from typing import Any

from authlib.oidc.core.grants.code import OpenIDToken
from authlib.oidc.core.grants.util import create_half_hash

from auth_svc.clients.client import Client
from auth_svc.people.accounts import Account
from auth_svc.protocol.decision import Decision
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.issuer import ID_TOKEN_SECONDS
from auth_svc.protocol.request import ProtocolRequest
from auth_svc.protocol.token_rows import Code
from auth_svc.proving.assurance import claims_of


class IdTokens(OpenIDToken):  # type: ignore[misc]
    """OpenID Connect Core section 2: says who signed in, when, and to which client."""

    def process_token(self, grant: Any, response: Any) -> Any:
        """Add the ID token where the person allowed `openid`; the grant's request knows the rest."""
        self.server: Decision = grant.server
        return super().process_token(grant, response)

    def encode_id_token(self, token: Mapping[str, Any], request: ProtocolRequest) -> str:
        """Sign it as everything that this service signs, with what the client registered; `at_hash` names its token."""
        client, code = request.client, request.authorization_code
        algorithm = client.id_token_algorithm
        claims = self.get_client_claims(client) | (self.get_authorization_code_claims(code) if code else {})
        claims["at_hash"] = create_half_hash(token["access_token"], algorithm).decode()
        claims |= self.generate_user_info(request.user, token["scope"])
        return self.server.issuer.keys.sign(claims, token_type="JWT", algorithm=algorithm)  # noqa: S106 - a media type

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
            claims |= claims_of(server.family.authenticated_at, server.family.methods)
            # What outlives the session says it, too: back-channel logout names it (section 2.1 there).
            if (session := server.family.started_in or server.family.session_id) is not None:
                claims["sid"] = session
        return claims

    def get_authorization_code_claims(self, authorization_code: Code) -> dict[str, Any]:
        """What ties it to one authorization request."""
        return {"nonce": authorization_code.nonce} if authorization_code.nonce else {}

    def generate_user_info(self, user: Account, scope: str) -> dict[str, Any]:
        """Who it is."""
        return self.server.issuer.userinfo(user, frozenset(scope.split()))
