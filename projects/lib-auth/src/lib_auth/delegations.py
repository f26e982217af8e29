"""Acting for people who are away: a client exchanges a person's token for a delegation, and that for access tokens.

The delegation is a row of the AuthService; what the client keeps is its id, which is worth nothing without the client's
own authentication (RFC 8693, with a token type of the AuthService's own).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import httpx

from lib_auth.client import OAuthClient
from lib_auth.oauth_error import OAuthError, ServerUnavailable
from lib_auth.tokens import TokenSet

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
DELEGATION: Final = "urn:event-based-svcs:params:oauth:token-type:delegation"

type Rejection = Literal["token", "target", "scope", "unknown", "expired", "withdrawn", "person"]

# What `delegation_state`, beside an error of the token endpoint, says of a delegation; else what the error means here.
STATES: Final[dict[Any, Rejection]] = {
    "unknown": "unknown",
    "expired": "expired",
    "withdrawn": "withdrawn",
    "person": "person",
}
REJECTIONS: Final[dict[str, Rejection]] = {
    "invalid_request": "token",
    "unauthorized_client": "token",
    "invalid_target": "target",
    "invalid_scope": "scope",
}


@dataclass(frozen=True, slots=True)
class GivenDelegation:
    """What a person lets the client do."""

    id: str
    expires_at: datetime


class ConsentNeeded(Exception):
    """The person has to allow it first, in a browser, at `consent_uri`; then the same can be asked again."""

    def __init__(self, consent_uri: str) -> None:
        super().__init__(f"the person must allow this first, at {consent_uri}")
        self.consent_uri = consent_uri


class DelegationRejected(Exception):
    """The AuthService gives no delegation, or no token for it, and will not when asked again.

    `reason`: the person's token is no good for it (`token`), the service (`target`) or the `scope` is not to be had;
    the delegation is `unknown`, `expired` or `withdrawn`, or its `person` cannot sign in any more.
    """

    def __init__(self, reason: Rejection, detail: str) -> None:
        super().__init__(detail)
        self.reason: Rejection = reason
        self.detail = detail


class Delegations:
    """The delegations of one confidential client; raises `ServerUnavailable` where the AuthService does not answer."""

    def __init__(
        self, issuer: str, client_id: str, *, client_secret: Callable[[], str], http: httpx.AsyncClient
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret  # read when needed: it may not be there yet at our start
        self._http = http
        self._client: OAuthClient | None = None

    async def begin(
        self, token: str, *, resources: Sequence[str], scope: Sequence[str], purpose: str, lasts: timedelta
    ) -> GivenDelegation:
        """Exchange a person's access token for a delegation; `purpose` is what they read about it.

        Raises `ConsentNeeded` and `DelegationRejected`.
        """
        form = [("subject_token", token), ("subject_token_type", ACCESS_TOKEN), ("requested_token_type", DELEGATION)]
        form += [("resource", resource) for resource in resources]
        form += [("scope", " ".join(scope)), ("purpose", purpose)]
        answer = await self._exchange([*form, ("delegation_seconds", str(int(lasts.total_seconds())))])
        expires_at = datetime.now(UTC) + timedelta(seconds=float(answer["expires_in"]))
        return GivenDelegation(str(answer["access_token"]), expires_at)

    async def token(self, delegation: str, *, resource: str, scope: Sequence[str]) -> TokenSet:
        """An access token for one resource; raises `DelegationRejected`."""
        form = [("subject_token", delegation), ("subject_token_type", DELEGATION)]
        answer = await self._exchange([*form, ("resource", resource), ("scope", " ".join(scope))])
        return TokenSet.of(answer)

    async def end(self, delegation: str) -> None:
        """Let nothing come of a delegation any more; one that is over already is as good (RFC 7009)."""
        try:
            await self._oauth().revoke(delegation)
        except OAuthError as error:
            raise self._failed(error) from error

    async def _exchange(self, form: list[tuple[str, str]]) -> dict[str, Any]:
        try:
            answer = await self._oauth().post_to("token_endpoint", [("grant_type", EXCHANGE), *form])
        except OAuthError as error:
            raise self._failed(error) from error
        if "access_token" not in answer:
            raise ServerUnavailable("the token endpoint's answer must have a token")
        return answer

    def _failed(self, error: OAuthError) -> Exception:
        if error.error == "consent_required":
            return ConsentNeeded(str(error.members.get("consent_uri", "")))
        reason = STATES.get(error.members.get("delegation_state"), REJECTIONS.get(error.error))
        if reason is not None:
            return DelegationRejected(reason, error.description)
        self._client = None  # perhaps its secret is another one now
        return ServerUnavailable(f"{self._issuer} refuses {self._client_id}: {error}")

    def _oauth(self) -> OAuthClient:
        if self._client is None:
            secret = self._client_secret()
            self._client = OAuthClient(self._issuer, self._client_id, client_secret=secret, http=self._http)
        return self._client
