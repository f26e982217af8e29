"""What this service signs: access tokens (RFC 9068), and the facts every endpoint needs to know of itself."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from auth_svc.accounts import Account
from auth_svc.assurance import claims_of
from auth_svc.clients import Client, is_loopback
from auth_svc.families import MICROS, Family
from auth_svc.listed import scope_text
from auth_svc.resources import Resources
from auth_svc.signing_keys import SigningKeys
from lib_auth.principal import with_included

ID_TOKEN_SECONDS = 300


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

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(urlsplit(self.url).hostname)

    @property
    def secure(self) -> bool:
        """Whether browsers reach the service over TLS."""
        return self.url.startswith("https://")

    def access_token(
        self,
        client: Client,
        *,
        audience: str,
        scopes: frozenset[str],
        now: int,
        account: Account | None = None,
        family: Family | None = None,
    ) -> AccessToken:
        """Sign an access token for a person's client, or for the client itself."""
        seconds = now // MICROS
        # A token of the very second in which older ones were refused must not look like one of them.
        issued_at = max(seconds, account.tokens_valid_after // MICROS + 1) if account else seconds
        token_id = secrets.token_urlsafe(16)
        scope = scope_text(self.resources.scopes_in(audience, scopes))
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": audience,  # RFC 9068 section 3: exactly one, or a token could be replayed elsewhere
            "sub": account.id if account else client.id,
            "client_id": client.id,
            "jti": token_id,
            "iat": issued_at,
            "exp": seconds + client.access_token_seconds,
            "scope": scope,
            "roles": sorted(with_included(account.roles if account else client.roles)),
        }
        claims |= _person_claims(account, family)
        text = self.keys.sign(claims, token_type="at+jwt")  # noqa: S106 - a media type
        return AccessToken(text, token_id, audience, scope, claims["exp"], client.access_token_seconds)

    def userinfo(self, account: Account, scopes: frozenset[str]) -> dict[str, Any]:
        """The claims about a person that `scopes` allow (OpenID Connect Core section 5.4)."""
        claims: dict[str, Any] = {"sub": account.id}
        if "profile" in scopes:
            claims |= {
                "name": account.username,
                "preferred_username": account.username,
                "updated_at": account.created_at // MICROS,
            }
        if "email" in scopes and account.email is not None:
            claims |= {"email": account.email, "email_verified": False}
        return claims


def _person_claims(account: Account | None, family: Family | None) -> Mapping[str, Any]:
    claims: dict[str, Any] = {}
    if account is not None:
        claims["preferred_username"] = account.username
    if family is not None:
        claims |= {"family": family.id, "auth_time": family.authenticated_at // MICROS, **claims_of(family.methods)}
        if family.session_id is not None:
            claims["sid"] = family.session_id
    return claims
