"""Decide an authorization request: the checks of the endpoint as a list, then a code or an interaction."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Error

from auth_svc.clients.client import Client
from auth_svc.factors.assurance import TWO_FACTORS, highest, lowest, reaches
from auth_svc.factors.held import NOTHING, Factors
from auth_svc.parameters import SECONDS
from auth_svc.people.accounts import Account
from auth_svc.people.consents import Consent
from auth_svc.people.sessions import Session
from auth_svc.protocol.effects import Effect, UsePushedRequest
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.id_token_hint import read_id_token_hint
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.protocol import Protocol
from auth_svc.protocol.pushed_requests import PREFIX, PushedRequest
from auth_svc.protocol.request import ProtocolRequest
from auth_svc.protocol.token_rows import TokenRows
from auth_svc.rights.resources import TargetInvalid

THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
PROMPTS = frozenset(("none", "login", "consent", "select_account"))
FRESH_SIGN_IN = frozenset(("prompt", "max_age"))  # satisfied by the sign-in they lead to


@dataclass(frozen=True, slots=True)
class AuthorizationRows:
    """What was loaded for the request."""

    client: Client | None = None
    session: Session | None = None
    account: Account | None = None
    consent: Consent | None = None
    pushed: PushedRequest | None = None
    factors: Factors = NOTHING  # what the person has beside the password
    needs_two: bool = False  # a role of theirs takes two factors


@dataclass(frozen=True, slots=True)
class Refused:
    """The request cannot even be answered to the client: the person sees an error page."""

    error: str
    description: str


@dataclass(frozen=True, slots=True)
class SendBack:
    """The browser goes back to the client, with a code (and `effects`) or with an error."""

    location: str = field(repr=False)
    effects: Sequence[Effect] = ()
    refused: Refused | None = None  # what the client is told


@dataclass(frozen=True, slots=True)
class SignInNeeded:
    """The person has to sign in first, and comes back with `query`."""

    query: str
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class StepNeeded:
    """The person is signed in and has to prove one more factor for `level`, and comes back with `query`."""

    query: str
    level: str


@dataclass(frozen=True, slots=True)
class FactorNeeded:
    """The person has to set up a second factor before anything else, and comes back with `query`."""

    query: str


@dataclass(frozen=True, slots=True)
class ConsentNeeded:
    """The person has to be asked."""

    client: Client
    account: Account
    scopes: frozenset[str]
    resources: tuple[str, ...]
    redirect_uri: str


type Outcome = Refused | SendBack | SignInNeeded | StepNeeded | FactorNeeded | ConsentNeeded


@dataclass(slots=True)
class _Request:
    """A request whose client, redirect URI, PKCE challenge and scope Authlib has accepted."""

    issuer: Issuer
    pairs: Sequence[tuple[str, str]]
    rows: AuthorizationRows
    now: int
    consented: bool
    request: ProtocolRequest
    redirect_uri: str
    prompts: frozenset[str] = frozenset()
    hinted: str | None = None  # whom the client expects
    resources: tuple[str, ...] = ()

    @property
    def data(self) -> dict[str, str]:
        return self.request.form

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset(str(self.request.scope).split())


type _Check = Callable[[_Request], Outcome | None]


def decide(
    issuer: Issuer, pairs: Sequence[tuple[str, str]], rows: AuthorizationRows, now: int, *, consented: bool = False
) -> Outcome:
    """Say what happens with an authorization request; `consented` is the person's answer to this very one."""
    refused = _check_pushed(pairs, rows, now)
    if refused is not None:
        return refused
    protocol = Protocol(issuer, TokenRows(client=rows.client), now)
    request = ProtocolRequest("GET", rows.pushed.pairs if rows.pushed else pairs, {})
    try:
        grant = protocol.get_consent_grant(request, rows.account)
        checked = _Request(issuer, pairs, rows, now, consented, request, grant.redirect_uri)
        return _first_outcome(checked, CHECKS) or _issue_code(protocol, grant, checked)
    except OAuth2Error as error:
        return _refusal(issuer, request, error)


def validate(issuer: Issuer, pairs: Sequence[tuple[str, str]], rows: AuthorizationRows) -> Refused | None:
    """Say what is wrong with a request before any person is asked; None if nothing is."""
    protocol = Protocol(issuer, TokenRows(client=rows.client), 0)
    request = ProtocolRequest("GET", pairs, {})
    try:
        grant = protocol.get_consent_grant(request, None)
        checked = _Request(issuer, pairs, rows, 0, False, request, grant.redirect_uri)  # noqa: FBT003 - nobody was asked
        outcome = _first_outcome(checked, REQUEST_CHECKS)
    except OAuth2Error as error:
        outcome = _refusal(issuer, request, error)
    return outcome.refused if isinstance(outcome, SendBack) else outcome if isinstance(outcome, Refused) else None


def _first_outcome(request: _Request, checks: Sequence[_Check]) -> Outcome | None:
    for check in checks:
        outcome = check(request)
        if outcome is not None:
            return outcome
    return None


def _refusal(issuer: Issuer, request: ProtocolRequest, error: OAuth2Error) -> Refused | SendBack:
    """Tell the client, or the person where the client's redirect URI is not certain."""
    code, description = str(error.error), str(error.description or "")
    if error.redirect_uri is None:
        return Refused(code, description)
    return _error(issuer, error.redirect_uri, request.form.get("state"), code, description)


def _check_pushed(pairs: Sequence[tuple[str, str]], rows: AuthorizationRows, now: int) -> Refused | None:
    """RFC 9126 section 4: what was pushed is all that counts, and only for its client, once and in time."""
    named = dict(pairs)
    if named.get("request_uri", "").startswith(PREFIX):
        if rows.pushed is None or not rows.pushed.is_good(named.get("client_id"), now):
            return Refused("invalid_request_uri", "The request has expired or was used. Begin again.")
    elif rows.client is not None and rows.client.pushed_only:
        return Refused("invalid_request", "This client must push its authorization requests (RFC 9126).")
    return None


def deny(issuer: Issuer, pairs: Sequence[tuple[str, str]], rows: AuthorizationRows, now: int) -> Outcome:
    """The person said no (RFC 6749 section 4.1.2.1)."""
    outcome = decide(issuer, pairs, rows, now)
    would_be_allowed = isinstance(outcome, SendBack) and outcome.effects  # by a consent remembered meanwhile
    if not isinstance(outcome, ConsentNeeded) and not would_be_allowed:
        return outcome
    request = ProtocolRequest("GET", rows.pushed.pairs if rows.pushed else pairs, {}).form
    return _error(issuer, request["redirect_uri"], request.get("state"), "access_denied", "The person refused.")


def _check_once(request: _Request) -> Outcome | None:
    """RFC 6749 section 3.1: no parameter twice, but for `resource` (RFC 8707 section 2)."""
    for name, values in request.request.payload.datalist.items():
        if len(values) > 1 and name != "resource":
            raise InvalidRequestError("No parameter may be sent twice.", redirect_uri=request.redirect_uri)
    return None


def _check_request_object(request: _Request) -> Outcome | None:
    """OpenID Connect Core section 6: we take no request objects and say so."""
    for name in ("request", "request_uri"):
        if name in request.data:
            return _refuse(request, f"{name}_not_supported", f"The parameter {name} is not supported.")
    return None


def _check_response_mode(request: _Request) -> Outcome | None:
    if request.data.get("response_mode", "query") != "query":
        return _refuse(request, "invalid_request", "Only response_mode=query is supported.")
    return None


def _check_prompt(request: _Request) -> Outcome | None:
    """OpenID Connect Core section 3.1.2.1: `none` stands alone."""
    request.prompts = frozenset(request.data.get("prompt", "").split())
    if not request.prompts <= PROMPTS or ("none" in request.prompts and len(request.prompts) > 1):
        wanted = "The parameter prompt must be none alone, or of login, consent and select_account."
        return _refuse(request, "invalid_request", wanted)
    return None


def _check_max_age(request: _Request) -> Outcome | None:
    if not SECONDS.fullmatch(request.data.get("max_age", "0")):
        return _refuse(request, "invalid_request", "The parameter max_age must be a number of seconds.")
    return None


def _check_hint(request: _Request) -> Outcome | None:
    """OpenID Connect Core section 3.1.2.1: with a hint, only that person will do; a bad one fits nobody, ever."""
    hint = request.data.get("id_token_hint")
    if hint is None:
        return None
    claims = read_id_token_hint(request.issuer, hint)
    if claims is None:
        return _refuse(request, "invalid_request", "The parameter id_token_hint must be an ID token from here.")
    request.hinted = claims.get("sub")
    return None


def _check_resources(request: _Request) -> Outcome | None:
    try:
        request.resources = request.issuer.resources.choose(request.request.payload.datalist.get("resource", []))
    except TargetInvalid as error:
        return _refuse(request, "invalid_target", str(error))
    return None


def _check_key(request: _Request) -> Outcome | None:
    """RFC 9449 section 10: the key that the code will be for."""
    if not THUMBPRINT.fullmatch(request.data.get("dpop_jkt", "A" * 43)):
        return _refuse(request, "invalid_request", "The parameter dpop_jkt must be a JWK thumbprint (SHA-256).")
    return None


def _check_signed_in(request: _Request) -> Outcome | None:
    if _is_signed_in(request):
        return None
    if "none" in request.prompts:
        return _refuse(request, "login_required", "Nobody is signed in.")
    # What asked for a fresh sign-in is left out of the way back, or it would ask for ever.
    kept = [(name, value) for name, value in request.pairs if name not in FRESH_SIGN_IN]
    if "consent" in request.prompts and request.rows.pushed is None:
        kept.append(("prompt", "consent"))
    return SignInNeeded(urlencode(kept), request.redirect_uri)


def _check_level(request: _Request) -> Outcome | None:
    """OpenID Connect Core section 3.1.2.1 and RFC 9470 section 5; levels that nobody here knows are not asked for."""
    session, rows = request.rows.session, request.rows
    assert session is not None  # noqa: S101 - checked before
    asked = lowest(request.data.get("acr_values", "").split())
    level = highest(asked, TWO_FACTORS if rows.needs_two else None)
    if level is None or reaches(session.methods, level):
        return None
    if "none" in request.prompts:
        return _refuse(request, "login_required", "The person has to prove more than they did.")
    if rows.factors.can_reach(level):
        return StepNeeded(urlencode(request.pairs), level)
    if rows.needs_two and not rows.factors.any:
        return FactorNeeded(urlencode(request.pairs))
    # OpenID Connect Core Unmet Authentication Requirements 1.0 section 2.
    return _refuse(request, "unmet_authentication_requirements", "The person has not set up what that takes.")


def _check_consent(request: _Request) -> Outcome | None:
    rows = request.rows
    assert rows.client is not None  # noqa: S101 - Authlib found it
    assert rows.account is not None  # noqa: S101 - checked before
    if request.consented or not _must_ask(request, rows.client):
        return None
    if "none" in request.prompts:
        return _refuse(request, "consent_required", "The person has to be asked.")
    return ConsentNeeded(rows.client, rows.account, request.scopes, request.resources, request.redirect_uri)


REQUEST_CHECKS: tuple[_Check, ...] = (
    _check_once,
    _check_request_object,
    _check_response_mode,
    _check_prompt,
    _check_max_age,
    _check_hint,
    _check_resources,
    _check_key,
)
CHECKS: tuple[_Check, ...] = (*REQUEST_CHECKS, _check_signed_in, _check_level, _check_consent)


def _is_signed_in(request: _Request) -> bool:
    session, account = request.rows.session, request.rows.account
    if session is None or account is None or not account.enabled or not session.is_alive(request.now):
        return False
    if not _is_just_signed_in(request, session):
        if {"login", "select_account"} & request.prompts:
            return False
        max_age = request.data.get("max_age")
        if max_age is not None and request.now - session.authenticated_at > int(max_age) * MICROS:
            return False
    return request.hinted in (None, account.id)


def _is_just_signed_in(request: _Request, session: Session) -> bool:
    """Whether the person signed in because of this very request: a pushed one knows when the browser came with it."""
    pushed = request.rows.pushed
    return pushed is not None and pushed.begun_at is not None and session.authenticated_at > pushed.begun_at


def _must_ask(request: _Request, client: Client) -> bool:
    if "consent" in request.prompts or client.consent == "always":
        return True
    if client.is_public and not request.redirect_uri.startswith("https://"):
        return True  # RFC 8252 section 8.6: any program on the machine can be this client
    remembered = request.rows.consent
    return client.consent == "once" and not (remembered and remembered.covers(request.scopes, request.resources))


def _issue_code(protocol: Protocol, grant: Any, request: _Request) -> SendBack:
    rows = request.rows
    assert rows.session is not None  # noqa: S101 - checked before
    protocol.resources = request.resources
    protocol.session_id = rows.session.id
    protocol.authenticated_at = rows.session.authenticated_at
    if rows.pushed is not None:
        protocol.effects.append(UsePushedRequest(rows.pushed.digest))
    protocol.methods = rows.session.methods
    answer = protocol.create_authorization_response(request.request, grant_user=rows.account, grant=grant)
    return SendBack(_with_issuer(request.issuer, answer.headers["location"]), protocol.effects)


def _refuse(request: _Request, error: str, description: str) -> SendBack:
    return _error(request.issuer, request.redirect_uri, request.data.get("state"), error, description)


def _error(issuer: Issuer, redirect_uri: str, state: str | None, error: str, description: str) -> SendBack:
    answer = {"error": error, "error_description": description, "state": state}
    location = _add(redirect_uri, {name: value for name, value in answer.items() if value})
    return SendBack(_with_issuer(issuer, location), refused=Refused(error, description))


def _with_issuer(issuer: Issuer, location: str) -> str:
    """RFC 9207 section 2: every authorization response names its issuer."""
    return _add(location, {"iss": issuer.url})


def _add(url: str, parameters: dict[str, str]) -> str:
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True) + list(parameters.items())
    return urlunsplit(parts._replace(query=urlencode(query)))
