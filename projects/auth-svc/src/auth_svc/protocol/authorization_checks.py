"""The checks of an authorization request, as lists: what the client must get right, then whether a person is there."""

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import InvalidRequestError

from auth_svc.clients.client import Client
from auth_svc.clients.details import LONGEST_AGE_SECONDS
from auth_svc.parameters import SECONDS
from auth_svc.people.sessions import Session
from auth_svc.protocol.authorization_request import (
    QUERY,
    AuthorizationRequest,
    ConsentNeeded,
    FactorNeeded,
    Outcome,
    SignInNeeded,
    StepNeeded,
    action_of,
    refuse,
)
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.id_token_hint import read_id_token_hint
from auth_svc.proving.assurance import TWO_FACTORS, highest, lowest, reaches
from auth_svc.rights.resources import TargetInvalid

THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
PROMPTS = frozenset(("none", "login", "consent", "select_account"))
WAY_BACK_SECONDS = 600  # the sign-in that was asked for is good for so long at least, whatever the client's limit is
FRESH_SIGN_IN = frozenset(("prompt", "max_age"))  # satisfied by the sign-in they lead to
NEW_SIGN_IN = frozenset(("login", "select_account"))

type Check = Callable[[AuthorizationRequest], Outcome | None]


def _check_once(request: AuthorizationRequest) -> Outcome | None:
    """RFC 6749 section 3.1: no parameter twice, but for `resource` (RFC 8707 section 2)."""
    for name, values in request.request.payload.datalist.items():
        if len(values) > 1 and name != "resource":
            raise InvalidRequestError("No parameter may be sent twice.", redirect_uri=request.redirect_uri)
    return None


def _check_request_object(request: AuthorizationRequest) -> Outcome | None:
    """OpenID Connect Core section 6: we take no request objects and say so."""
    for name in ("request", "request_uri"):
        if name in request.data:
            return refuse(request, f"{name}_not_supported", f"The parameter {name} is not supported.")
    return None


def _check_response_mode(request: AuthorizationRequest) -> Outcome | None:
    mode = request.data.get("response_mode", QUERY)
    if mode == QUERY or action_of(request.redirect_uri, request.data) is not None:
        return None
    return refuse(request, "invalid_request", "The parameter response_mode must be query, or form_post for a website.")


def _check_prompt(request: AuthorizationRequest) -> Outcome | None:
    """OpenID Connect Core section 3.1.2.1: `none` stands alone."""
    request.prompts = frozenset(request.data.get("prompt", "").split())
    if not request.prompts <= PROMPTS or ("none" in request.prompts and len(request.prompts) > 1):
        wanted = "The parameter prompt must be none alone, or of login, consent and select_account."
        return refuse(request, "invalid_request", wanted)
    return None


def _check_max_age(request: AuthorizationRequest) -> Outcome | None:
    if not SECONDS.fullmatch(request.data.get("max_age", "0")):
        return refuse(request, "invalid_request", "The parameter max_age must be a number of seconds.")
    return None


def _check_hint(request: AuthorizationRequest) -> Outcome | None:
    """OpenID Connect Core section 3.1.2.1: with a hint, only that person will do; a bad one fits nobody, ever."""
    hint = request.data.get("id_token_hint")
    if hint is None:
        return None
    claims = read_id_token_hint(request.issuer, hint)
    if claims is None:
        return refuse(request, "invalid_request", "The parameter id_token_hint must be an ID token from here.")
    request.hinted = claims.get("sub")
    return None


def _check_resources(request: AuthorizationRequest) -> Outcome | None:
    try:
        request.resources = request.issuer.resources.choose(request.request.payload.datalist.get("resource", []))
    except TargetInvalid as error:
        return refuse(request, "invalid_target", str(error))
    return None


def _check_key(request: AuthorizationRequest) -> Outcome | None:
    """RFC 9449 section 10: the key that the code will be for."""
    if not THUMBPRINT.fullmatch(request.data.get("dpop_jkt", "A" * 43)):
        return refuse(request, "invalid_request", "The parameter dpop_jkt must be a JWK thumbprint (SHA-256).")
    return None


def _check_signed_in(request: AuthorizationRequest) -> Outcome | None:
    if _is_signed_in(request):
        return None
    if "none" in request.prompts:
        return refuse(request, "login_required", "Nobody is signed in.")
    max_age = 0 if NEW_SIGN_IN & request.prompts else _max_age(request)
    # What asked for a fresh sign-in is asked for less on the way back, or it would ask for ever.
    kept = [(name, value) for name, value in request.pairs if name not in FRESH_SIGN_IN]
    if request.rows.pushed is None:
        kept += [("prompt", "consent")] if "consent" in request.prompts else []
        kept += [("max_age", str(max(max_age, WAY_BACK_SECONDS)))] if max_age is not None else []
    return SignInNeeded(urlencode(kept), request.redirect_uri, max_age)


def _check_level(request: AuthorizationRequest) -> Outcome | None:
    """OpenID Connect Core section 3.1.2.1 and RFC 9470 section 5; levels that nobody here knows are not asked for."""
    session, rows = request.rows.session, request.rows
    assert session is not None  # noqa: S101 - checked before
    asked = lowest(_levels(request))
    level = highest(asked, TWO_FACTORS if rows.needs_two else None)
    if level is None or reaches(session.methods, level):
        return None
    if "none" in request.prompts:
        return refuse(request, "login_required", "The person has to prove more than they did.")
    if rows.factors.can_reach(level):
        return StepNeeded(urlencode(request.pairs), level)
    if rows.needs_two and not rows.factors.any:
        return FactorNeeded(urlencode(request.pairs))
    # OpenID Connect Core Unmet Authentication Requirements 1.0 section 2.
    return refuse(request, "unmet_authentication_requirements", "The person has not set up what that takes.")


def _check_consent(request: AuthorizationRequest) -> Outcome | None:
    """Whoever allows something shows the second factor that they have: the session may be from before it."""
    rows = request.rows
    assert rows.client is not None  # noqa: S101 - Authlib found it
    assert rows.account is not None  # noqa: S101 - checked before
    assert rows.session is not None  # noqa: S101 - checked before
    if not _must_ask(request, rows.client):
        return None
    if "none" in request.prompts:
        return refuse(request, "consent_required", "The person has to be asked.")
    if rows.factors.any and not reaches(rows.session.methods, TWO_FACTORS):
        return StepNeeded(urlencode(request.pairs), TWO_FACTORS)
    if request.consented:
        return None
    return ConsentNeeded(rows.client, rows.account, request.scopes, request.resources, request.redirect_uri)


REQUEST_CHECKS: tuple[Check, ...] = (
    _check_once,
    _check_request_object,
    _check_response_mode,
    _check_prompt,
    _check_max_age,
    _check_hint,
    _check_resources,
    _check_key,
)
CHECKS: tuple[Check, ...] = (*REQUEST_CHECKS, _check_signed_in, _check_level, _check_consent)


def _is_signed_in(request: AuthorizationRequest) -> bool:
    session, account = request.rows.session, request.rows.account
    if session is None or account is None or not account.enabled or not session.is_alive(request.now):
        return False
    if not _is_just_signed_in(request, session):
        if NEW_SIGN_IN & request.prompts:
            return False
        max_age = _max_age(request)
        # What a clock said that was set back since is not known to be young.
        if max_age is not None and abs(request.now - session.authenticated_at) > max_age * MICROS:
            return False
    return request.hinted in (None, account.id)


def _max_age(request: AuthorizationRequest) -> int | None:
    """How old the sign-in may be: as the request says, or as the client registered (OpenID Registration section 2)."""
    if (asked := request.data.get("max_age")) is not None:
        return int(asked)
    client = request.rows.client
    if client is None or client.default_max_age is not None:
        return client.default_max_age if client is not None else None
    # Its ID tokens must say when somebody signed in: that must be known, however long ago.
    return LONGEST_AGE_SECONDS if client.details.get("require_auth_time") else None


def _levels(request: AuthorizationRequest) -> Sequence[str]:
    """Which levels will do: as the request says, or as the client registered (OpenID Registration section 2)."""
    if (asked := request.data.get("acr_values")) is not None:
        return asked.split()
    client = request.rows.client
    return client.details.get("default_acr_values", []) if client is not None else []


def _is_just_signed_in(request: AuthorizationRequest, session: Session) -> bool:
    """Whether the person signed in because of this very request: a pushed one knows when the browser came with it."""
    pushed = request.rows.pushed
    return pushed is not None and pushed.begun_at is not None and session.authenticated_at > pushed.begun_at


def _must_ask(request: AuthorizationRequest, client: Client) -> bool:
    if "consent" in request.prompts or client.consent == "always":
        return True
    if client.is_public and not request.redirect_uri.startswith("https://"):
        return True  # RFC 8252 section 8.6: any program on the machine can be this client
    remembered = request.rows.consent
    return client.consent == "once" and not (remembered and remembered.covers(request.scopes, request.resources))
