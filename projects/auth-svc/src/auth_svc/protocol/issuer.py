"""What this service signs: access tokens (RFC 9068), and the facts every endpoint needs to know of itself."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from auth_svc import opaque
from auth_svc.clients.client import Client
from auth_svc.listed import scope_text
from auth_svc.loopback import is_loopback
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import LIFETIME_SECONDS
from auth_svc.protocol.families import MICROS, Family
from auth_svc.protocol.nonces import Nonces
from auth_svc.protocol.signing_keys import SigningKeys
from auth_svc.proving.assurance import claims_of
from auth_svc.rights.resources import Resources
from auth_svc.rights.roles import Roles

ID_TOKEN_SECONDS = 300
REFRESH_SECONDS = 30 * 24 * 3600  # unless `EVS_REFRESH_DAYS` says otherwise
MAX_PERMISSIONS = 100  # a token with more would not fit into a header everywhere; introspection says them all


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A fresh access token and what is told about it."""

    text: str
    id: str
    audience: str
    scope: str
    expires_at: int
    lifetime: int


@dataclass(frozen=True, slots=True)
class Issuer:
    """The name this service signs with, its keys and its audiences."""

    url: str
    keys: SigningKeys
    resources: Resources
    nonces: Nonces
    session_seconds: int = LIFETIME_SECONDS  # of a sign-in in a browser
    refresh_seconds: int = REFRESH_SECONDS  # of a refresh token that is not used
    refresh_grace_seconds: int = 0  # in which a refresh token may come again, from another tab of the same browser
    roles: Roles = field(default_factory=Roles)
    second_factor_roles: frozenset[str] = frozenset()  # whose holders must have two factors
    takes_documents: bool = False  # whether a client may be named by the URL of its metadata

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return _is_on_loopback(self.url)

    @property
    def secure(self) -> bool:
        """Whether browsers reach the service over TLS."""
        return self.url.startswith("https://")

    def needs_two_factors(self, account: Account) -> bool:
        """Whether the person holds a role that takes two factors, by whatever role or group they have it."""
        if not self.second_factor_roles:
            return False
        return not self.roles.held(account.granted_roles).isdisjoint(self.second_factor_roles)

    def access_token(
        self,
        client: Client,
        *,
        audience: str,
        scopes: frozenset[str],
        now: int,
        account: Account | None = None,
        family: Family | None = None,
        thumbprint: str | None = None,
        actor: Mapping[str, Any] | None = None,
    ) -> AccessToken:
        """Sign an access token for a person's client, or for the client itself.

        `thumbprint` binds it to a key (RFC 9449 section 6), `actor` says who acts for the person (RFC 8693).
        """
        seconds = now // MICROS
        # A token of the very second in which older ones were refused must not look like one of them.
        held = self.roles.held(account.granted_roles if account else client.roles)
        refused = max(client.tokens_valid_after, self.roles.refused_until(held))
        refused = max(refused, account.tokens_valid_after) if account else refused
        issued_at = max(seconds, refused // MICROS + 1)
        token_id = opaque.new_token_id()
        allowed = self.resources.scopes_in(audience, scopes)
        scope, lifetime = scope_text(allowed), self.resources.lifetime(audience, client.access_token_seconds)
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": audience,  # RFC 9068 section 3: exactly one, or a token could be replayed elsewhere
            "sub": account.id if account else client.id,
            "client_id": client.id,
            "jti": token_id,
            "iat": issued_at,
            "exp": seconds + lifetime,
            "scope": scope,
        }
        claims |= self._rights(held, audience)
        claims |= _person_claims(account, family, allowed)
        if thumbprint is not None:
            claims["cnf"] = {"jkt": thumbprint}
        if actor is not None:
            claims["act"] = actor
        algorithm = self.resources.signing_alg(audience)
        text = self.keys.sign(claims, token_type="at+jwt", algorithm=algorithm)  # noqa: S106 - a media type
        return AccessToken(text, token_id, audience, scope, claims["exp"], lifetime)

    def _rights(self, held: frozenset[str], audience: str) -> Mapping[str, Any]:
        permissions = self.permissions(held, audience)
        told = {"permissions": permissions} if permissions and len(permissions) <= MAX_PERMISSIONS else {}
        return {"roles": sorted(held)} | told

    def permissions(self, held: Iterable[str], audience: str) -> list[str]:
        """Return which of a resource's permissions whoever holds these roles has."""
        resource = self.resources.find(audience)
        if resource is None or not resource.permissions:
            return []
        return sorted(self.roles.permissions(held) & resource.permissions.keys())

    def userinfo(self, account: Account, scopes: frozenset[str]) -> dict[str, Any]:
        """The claims about a person that `scopes` allow (OpenID Connect Core section 5.4)."""
        claims: dict[str, Any] = {"sub": account.id}
        if "profile" in scopes:
            claims |= {
                "name": account.shown_name,
                "preferred_username": account.username,
                "updated_at": (account.changed_at or account.created_at) // MICROS,
            }
        if "email" in scopes and account.email is not None:
            claims |= {"email": account.email, "email_verified": account.email_verified}
        if "groups" in scopes:
            claims["groups"] = sorted(account.groups)
        return claims


@lru_cache(16)  # asked by every request
def _is_on_loopback(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname)


def _person_claims(account: Account | None, family: Family | None, scopes: frozenset[str]) -> Mapping[str, Any]:
    claims: dict[str, Any] = {}
    if account is not None:
        claims["preferred_username"] = account.username
        if "groups" in scopes:
            claims["groups"] = sorted(account.groups)
    if family is not None:
        claims |= {"family": family.id, **claims_of(family.authenticated_at, family.methods)}
        if family.session_id is not None:
            claims["sid"] = family.session_id
    return claims
