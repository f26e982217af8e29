"""ID tokens: who signed in, when, and to which client (OpenID Connect Core section 2)."""

from typing import Any

from authlib.oidc.core.grants.code import OpenIDToken

from auth_svc.clients.client import Client
from auth_svc.factors.assurance import claims_of
from auth_svc.people.accounts import Account
from auth_svc.protocol.decision import Decision
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.issuer import ID_TOKEN_SECONDS
from auth_svc.protocol.token_rows import Code


class IdTokens(OpenIDToken):  # type: ignore[misc]
    """OpenID Connect Core section 2: says who signed in, when, and to which client."""

    def process_token(self, grant: Any, response: Any) -> Any:
        """Add the ID token where the person allowed `openid`; the grant's request knows the rest."""
        self.server: Decision = grant.server
        return super().process_token(grant, response)

    def resolve_client_private_key(self, client: Client) -> Any:
        """The active key."""
        return self.server.issuer.keys.active(client.id_token_algorithm).private

    def get_client_algorithm(self, client: Client) -> str:
        """What the client registered."""
        return client.id_token_algorithm

    def get_encode_header(self, client: Client) -> dict[str, str]:
        """Name the key: clients keep more than one during a rotation."""
        key = self.server.issuer.keys.active(client.id_token_algorithm)
        return {"alg": key.algorithm, "typ": "JWT", "kid": key.id}

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
            claims |= {"auth_time": server.family.authenticated_at // MICROS, **claims_of(server.family.methods)}
            if server.family.session_id is not None:
                claims["sid"] = server.family.session_id
        return claims

    def get_authorization_code_claims(self, authorization_code: Code) -> dict[str, Any]:
        """What ties it to one authorization request."""
        return {"nonce": authorization_code.nonce} if authorization_code.nonce else {}

    def generate_user_info(self, user: Account, scope: str) -> dict[str, Any]:
        """Who it is."""
        return self.server.issuer.userinfo(user, frozenset(scope.split()))
