"""Token exchange (RFC 8693): a service that was called for a person acts for them, in less, and says so (`act`)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from authlib.oauth2.rfc6749 import InvalidRequestError, InvalidScopeError, UnauthorizedClientError
from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin

from auth_svc.clients.client import CONFIDENTIAL, EXCHANGE, Client
from auth_svc.grants import delegating
from auth_svc.protocol.decision import Decision, TargetInvalidError
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.token_rows import DELEGATION
from lib_auth.principal import Principal
from lib_events.clock import to_micros

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
LONGEST_CHAIN = 4  # of actors; each is a service that called the next


class TokenExchangeGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """Delegation only: the new token always names who acts; nobody becomes somebody else.

    A client that acts for longer than the person's token lives exchanges it for a delegation, and that for tokens.
    """

    TOKEN_ENDPOINT_AUTH_METHODS = CONFIDENTIAL
    GRANT_TYPE = EXCHANGE
    server: Decision

    def validate_token_request(self) -> None:
        """Find out who wants to act for whom, and whether they may."""
        client: Client = self.authenticate_token_endpoint_client()
        self.request.client = client
        if not client.check_grant_type(EXCHANGE):
            raise UnauthorizedClientError("The client may not exchange tokens.")
        self._check_types()
        self._answer: dict[str, Any] | None = None
        if self.request.form.get("subject_token_type") == DELEGATION:
            self.request.client, self._scope = delegating.use(self.server, client, self.request)
            self.server.actor = acting((client.id,))
            return
        subject = self._subject(client)
        if self.request.form.get("requested_token_type") == DELEGATION:
            self._answer = delegating.begin(self.server, client, subject, self.request)
            return
        self.server.family = self.server.rows.subject_family
        self.server.actor = acting((client.id, *subject.actors))
        self._scope = self._narrowed(client, subject)
        self.request.client = self._shortened(client, subject)

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        """Section 2.2.1: the token, and what kind it is."""
        if self._answer is not None:
            return 200, self._answer, self.TOKEN_RESPONSE_HEADER
        user = self.server.rows.account
        token = self.generate_token(user=user, scope=self._scope, include_refresh_token=False)
        return 200, token | {"issued_token_type": ACCESS_TOKEN}, self.TOKEN_RESPONSE_HEADER

    def _subject(self, client: Client) -> Principal:
        """Whose token it is; raises for one that this client may not exchange."""
        subject, family = self.server.rows.subject, self.server.rows.subject_family
        if subject is None or family is None or self.server.person(family) is None:
            # Section 2.2.2: a subject token that is not valid is an invalid request.
            raise InvalidRequestError("The 'subject_token' must be a valid access token of a person.")
        if subject.audience != client.resource and subject.client_id != client.id:
            raise UnauthorizedClientError("The client may exchange only what was meant for it, or issued to it.")
        if len(subject.actors) >= LONGEST_CHAIN:
            raise InvalidRequestError(f"At most {LONGEST_CHAIN} services may act one for the other.")
        return subject

    def _check_types(self) -> None:
        form = self.request.form
        if form.get("subject_token_type") not in (ACCESS_TOKEN, JWT, DELEGATION):
            raise InvalidRequestError(f"The 'subject_token_type' must be {ACCESS_TOKEN}.")
        of_person = form.get("subject_token_type") != DELEGATION
        wanted = (ACCESS_TOKEN, JWT, DELEGATION) if of_person else (ACCESS_TOKEN, JWT)
        if form.get("requested_token_type", ACCESS_TOKEN) not in wanted:
            raise InvalidRequestError(f"The 'requested_token_type' must be {ACCESS_TOKEN}.")
        if "actor_token" in form or "actor_token_type" in form:
            raise InvalidRequestError("The client itself is the actor: 'actor_token' must be left out.")
        if "audience" in form:
            # Section 2.2.2: a token for another target than the one that was named would be worse than none.
            raise TargetInvalidError("Name the target by its URI in 'resource': 'audience' must be left out.")

    def _narrowed(self, client: Client, subject: Principal) -> str:
        """Never more than the person's token has, and never more than the client may have."""
        allowed = subject.scopes & client.scopes
        requested = frozenset((self.request.payload.scope or "").split())
        if not requested <= allowed or not allowed:
            raise InvalidScopeError
        return " ".join(sorted(requested or allowed))

    def _shortened(self, client: Client, subject: Principal) -> Client:
        """Return the client for no longer than the person's token: nobody renews by exchanges what ends by itself."""
        left = (to_micros(subject.expires_at) - self.server.now) // MICROS
        return replace(client, access_token_seconds=max(1, min(client.access_token_seconds, left)))


def acting(actors: Sequence[str]) -> dict[str, Any] | None:
    """The claim `act`: who acts now, and within it who acted before (section 4.1)."""
    told: dict[str, Any] | None = None
    for actor in reversed(actors):
        told = {"sub": actor} | ({"act": told} if told else {})
    return told
