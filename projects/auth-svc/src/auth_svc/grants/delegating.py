"""What token exchange does with delegations (RFC 8693): one is given for a person's token, and tokens for one.

The person's token lives for minutes, what a client does for them may take days. So the client exchanges the token,
while it lives, for a delegation: no more than the person allowed, with an end, and withdrawn by whatever withdraws
their consent. Later it exchanges the delegation, as often as it needs, for access tokens that live for minutes and say
who acts (`act`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import InvalidRequestError, InvalidScopeError, OAuth2Error, UnauthorizedClientError

from auth_svc import opaque
from auth_svc.clients.client import Client
from auth_svc.listed import scope_text
from auth_svc.people.delegations import MOST_ALIVE, Delegation
from auth_svc.protocol.decision import Decision, TargetInvalidError
from auth_svc.protocol.effects import StartDelegation, UseDelegation
from auth_svc.protocol.families import MICROS, Family
from auth_svc.protocol.token_rows import DELEGATION
from auth_svc.rights.resources import Resource, TargetInvalid
from lib_auth.principal import Principal

DAY_SECONDS = 24 * 3600
DELEGATION_SECONDS = 7 * DAY_SECONDS  # unless the client asks for less, or more
LONGEST_DELEGATION_SECONDS = 90 * DAY_SECONDS
DELEGATED_ACCESS_SECONDS = 300  # its access tokens live no longer, whatever the client's others do
MAX_PURPOSE = 200
ALLOW_PATH: Final = "/account/apps/allow"

type Over = Literal["unknown", "expired", "withdrawn", "person"]


class ConsentRequiredError(OAuth2Error):  # type: ignore[misc]
    """The person has to allow it first, at `consent_uri`."""

    error = "consent_required"

    def __init__(self, consent_uri: str) -> None:
        super().__init__(description="The person must allow this first, at 'consent_uri'.")
        self._consent_uri = consent_uri

    def get_body(self) -> list[tuple[str, str]]:
        """RFC 6749 section 5.2, with one member more."""
        return [*super().get_body(), ("consent_uri", self._consent_uri)]


class DelegationOverError(InvalidRequestError):  # type: ignore[misc]
    """RFC 8693 section 2.2.2: what is exchanged is worth nothing any more; `delegation_state` says why."""

    def __init__(self, state: Over, description: str) -> None:
        super().__init__(description=description)
        self._state = state

    def get_body(self) -> list[tuple[str, str]]:
        """RFC 6749 section 5.2, with one member more."""
        return [*super().get_body(), ("delegation_state", self._state)]


def begin(decision: Decision, client: Client, subject: Principal, request: Any) -> dict[str, Any]:
    """Give `client` a delegation for the token of `subject`; returns the answer (RFC 8693 section 2.2.1)."""
    if subject.actors:
        # Else a run could renew for ever, by starting others, what the person gave it for a time.
        raise UnauthorizedClientError("A delegation is given by the person: not for a token that was exchanged.")
    seconds, purpose = _seconds(request), request.form.get("purpose", "")[:MAX_PURPOSE] or client.name
    resources, scopes = _wanted(decision, request)
    _check_actor(client, resources, scopes)
    _check_consent(decision, client, subject, resources, scopes)
    if decision.rows.too_many:
        raise InvalidRequestError(f"At most {MOST_ALIVE} delegations of a person live at once: let one end first.")
    came_from = decision.rows.subject_family
    assert came_from is not None  # noqa: S101 - the grant has looked
    family = _opened(came_from, client, resources, scopes, decision.now)
    expires_at = decision.now + seconds * MICROS
    delegation = Delegation(id=opaque.new_id(), family=family, purpose=purpose, expires_at=expires_at)
    decision.effects.append(StartDelegation(delegation, came_from.id))
    return {
        "access_token": delegation.id,
        "issued_token_type": DELEGATION,
        "token_type": "N_A",  # section 2.2.1: it is no access token
        "expires_in": seconds,
        "scope": family.scope,
    }


def _opened(
    came_from: Family, client: Client, resources: Sequence[Resource], scopes: frozenset[str], now: int
) -> Family:
    """The family behind a delegation: it depends on no session, and says how the person had signed in."""
    return replace(
        came_from,
        id=opaque.new_id(),
        client_id=client.id,
        session_id=None,
        scope=scope_text(scopes),
        resources=tuple(resource.identifier for resource in resources),
        created_at=now,
        key_thumbprint=None,
    )


def use(decision: Decision, client: Client, request: Any) -> tuple[Client, str]:
    """Let an access token come of a delegation; returns the client as long as that lives, and its scope."""
    delegation = _living(decision, client)
    family, resources = delegation.family, decision.issuer.resources
    requested = frozenset((request.payload.scope or "").split()) or family.scopes
    if not requested <= family.scopes:
        raise InvalidScopeError(description="The person did not allow this scope.")
    decision.family = family
    audience = resources.find(decision.audience(client))
    assert audience is not None  # noqa: S101 - `audience` chose among those there are
    held = resources.scopes_in(audience.identifier, requested)
    if not held or (request.payload.scope and held != requested):
        raise InvalidScopeError(description="The scope must mean something at the resource.")
    _check_actor(client, [audience], held)  # what the resource allowed may be taken back
    if delegation.used_at is None:
        decision.effects.append(UseDelegation(delegation))
    left = (delegation.expires_at - decision.now) // MICROS
    seconds = max(1, min(client.access_token_seconds, DELEGATED_ACCESS_SECONDS, left))
    return replace(client, access_token_seconds=seconds), scope_text(held)


def _living(decision: Decision, client: Client) -> Delegation:
    found = decision.rows.delegation
    if found is None or found.family.client_id != client.id:
        raise DelegationOverError("unknown", "The 'subject_token' must be a delegation of this client.")
    if decision.person(found.family) is None:
        raise DelegationOverError("person", "The person cannot sign in any more, or not with so little.")
    if found.family.revoked_at is not None:
        raise DelegationOverError("withdrawn", f"The delegation was withdrawn ({found.ended_why}).")
    if decision.now >= found.expires_at:
        raise DelegationOverError("expired", "The delegation has expired.")
    return found


def _seconds(request: Any) -> int:
    text = request.form.get("delegation_seconds", str(DELEGATION_SECONDS))
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= LONGEST_DELEGATION_SECONDS):
        raise InvalidRequestError(f"'delegation_seconds' must be 1 to {LONGEST_DELEGATION_SECONDS}.")
    return int(text)


def _wanted(decision: Decision, request: Any) -> tuple[list[Resource], frozenset[str]]:
    """The resources and scopes a delegation is asked for: each scope means something at one of them."""
    known = decision.issuer.resources
    try:
        chosen = known.choose(request.payload.datalist.get("resource", []))
    except TargetInvalid as error:
        raise TargetInvalidError(str(error)) from error
    found = [resource for identifier in chosen if (resource := known.find(identifier)) is not None]
    scopes = frozenset((request.payload.scope or "").split())
    if not scopes or not scopes <= frozenset[str]().union(*(resource.scopes for resource in found)):
        raise InvalidScopeError(description="Each scope must mean something at one of the resources.")
    return found, scopes


def _check_actor(client: Client, resources: Sequence[Resource], scopes: frozenset[str]) -> None:
    """A resource decides which clients act for people there; ours act at our own by what they are registered for."""
    for resource in resources:
        wanted = scopes & resource.scopes.keys()
        if client.id not in resource.actors and not wanted <= client.scopes:
            raise TargetInvalidError(f"The resource does not let {client.id} act for people: name it in its 'actors'.")


def _check_consent(
    decision: Decision, client: Client, subject: Principal, resources: Sequence[Resource], scopes: frozenset[str]
) -> None:
    """The person has to have allowed it for while they are away: having signed in to the client is not enough."""
    consent = decision.rows.consent
    for resource in resources:
        wanted = scopes & resource.scopes.keys()
        if resource.identifier == subject.audience and not wanted <= subject.scopes:
            raise InvalidScopeError(description="The person's token does not reach that far.")
        if consent is None or not consent.covers_away(wanted, (resource.identifier,)):
            asked = [("client", client.id), ("scope", scope_text(scopes))]
            asked += [("resource", each.identifier) for each in resources]
            raise ConsentRequiredError(f"{decision.issuer.url}{ALLOW_PATH}?{urlencode(asked)}")
