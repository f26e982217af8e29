"""What a decision about one request may look at, and the effects it lists; the grants know no more than this."""

from collections.abc import Mapping
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Error

from auth_svc.people.accounts import Account, enabled
from auth_svc.protocol.effects import Effect
from auth_svc.protocol.families import Family
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.token_rows import TokenRows
from auth_svc.proving.assurance import TWO_FACTORS, reaches
from lib_auth.dpop import Proof


class TargetInvalidError(OAuth2Error):  # type: ignore[misc]
    """RFC 8707 section 2."""

    error = "invalid_target"


class Decision(AuthorizationServer):  # type: ignore[misc]  # Authlib ships no types
    """Authlib's server over the rows of one request: nothing is looked up, saved or revoked while it decides."""

    def __init__(self, issuer: Issuer, rows: TokenRows, now: int) -> None:
        super().__init__()
        self.issuer = issuer
        self.rows = rows
        self.now = now
        self.effects: list[Effect] = []
        self.family: Family | None = None  # whose tokens this request is about, once that is certain
        self.resources: tuple[str, ...] = ()  # what a person is allowing right now
        self.address: str | None = None  # where a device asks from
        self.session_id = ""
        self.was_allowed_before = False  # the person is not asked: what they allowed once counts
        self.authenticated_at = 0
        self.methods: tuple[str, ...] = ()  # how they proved who they are
        self.actor: Mapping[str, Any] | None = None  # who acts for the person
        self.proof: Proof | None = None  # of the key that tokens are bound to
        self.refresh_token: str | None = None  # what the next one is, where that is not by chance
        self.is_repeat = False  # the next refresh token was given out a moment ago, and is told once more

    def person(self, family: Family) -> Account | None:
        """Return the family's person, unless they may not sign in any more, or would need more for it than they proved.

        A role may have come later than the sign-in: tokens would say it without the second factor that it takes.
        """
        account = enabled(self.rows.account)
        if account is None or (self.issuer.needs_two_factors(account) and not reaches(family.methods, TWO_FACTORS)):
            return None
        return account

    def holds(self, thumbprint: str) -> bool:
        """Whether the client has proven that it holds that key."""
        return self.proof is not None and self.proof.thumbprint == thumbprint
