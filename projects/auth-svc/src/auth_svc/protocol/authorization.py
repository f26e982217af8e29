"""Decide an authorization request: its checks in turn, then a code or an interaction."""

from collections.abc import Sequence
from typing import Any

from authlib.oauth2.rfc6749 import OAuth2Error

from auth_svc.protocol.authorization_checks import CHECKS, REQUEST_CHECKS, Check
from auth_svc.protocol.authorization_request import (
    AuthorizationRequest,
    AuthorizationRows,
    ConsentNeeded,
    Outcome,
    Refused,
    SendBack,
    StepNeeded,
    action_of,
    send_error,
    with_issuer,
)
from auth_svc.protocol.effects import UsePushedRequest
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.protocol import Protocol
from auth_svc.protocol.pushed_requests import PREFIX
from auth_svc.protocol.request import ProtocolRequest
from auth_svc.protocol.token_rows import TokenRows

OF_PUSHED = ("client_id", "request_uri")  # all that counts beside what was pushed


def decide(
    issuer: Issuer, pairs: Sequence[tuple[str, str]], rows: AuthorizationRows, now: int, *, consented: bool = False
) -> Outcome:
    """Say what happens with an authorization request; `consented` is the person's answer to this very one."""
    refused = _check_pushed(pairs, rows, now)
    if refused is not None:
        return refused
    protocol = Protocol(issuer, TokenRows(client=rows.client), now)
    request = ProtocolRequest("GET", rows.pushed.pairs if rows.pushed else pairs)
    try:
        grant = protocol.get_consent_grant(request, rows.account)
        checked = AuthorizationRequest(issuer, pairs, rows, now, consented, request, grant.redirect_uri)
        return _first_outcome(checked, CHECKS) or _issue_code(protocol, grant, checked)
    except OAuth2Error as error:
        return _refusal(issuer, request, error)


def validate(issuer: Issuer, pairs: Sequence[tuple[str, str]], rows: AuthorizationRows) -> Refused | None:
    """Say what is wrong with a request before any person is asked; None if nothing is."""
    protocol = Protocol(issuer, TokenRows(client=rows.client), 0)
    request = ProtocolRequest("GET", pairs)
    try:
        grant = protocol.get_consent_grant(request, None)
        checked = AuthorizationRequest(issuer, pairs, rows, 0, False, request, grant.redirect_uri)  # noqa: FBT003 - nobody was asked
        outcome = _first_outcome(checked, REQUEST_CHECKS)
    except OAuth2Error as error:
        outcome = _refusal(issuer, request, error)
    return outcome.refused if isinstance(outcome, SendBack) else outcome if isinstance(outcome, Refused) else None


def _first_outcome(request: AuthorizationRequest, checks: Sequence[Check]) -> Outcome | None:
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
    return send_error(issuer, error.redirect_uri, request.form, code, description)


def _check_pushed(pairs: Sequence[tuple[str, str]], rows: AuthorizationRows, now: int) -> Refused | None:
    """RFC 9126 section 4: what was pushed is all that counts, and only for its client, once and in time."""
    named = dict(pairs)
    if any(len([name for name, _ in pairs if name == once]) > 1 for once in OF_PUSHED):
        return Refused("invalid_request", "No parameter may be sent twice.")  # one was looked up, the other checked
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
    if not isinstance(outcome, ConsentNeeded | StepNeeded) and not would_be_allowed:
        return outcome
    request = ProtocolRequest("GET", rows.pushed.pairs if rows.pushed else pairs).form
    return send_error(issuer, request["redirect_uri"], request, "access_denied", "The person refused.")


def _issue_code(protocol: Protocol, grant: Any, request: AuthorizationRequest) -> SendBack:
    rows = request.rows
    assert rows.session is not None  # noqa: S101 - checked before
    protocol.resources = request.resources
    protocol.session_id = rows.session.id
    assert rows.client is not None  # noqa: S101 - Authlib found it
    protocol.was_allowed_before = rows.client.consent == "once" and not request.consented
    protocol.authenticated_at = rows.session.authenticated_at
    if rows.pushed is not None:
        protocol.effects.append(UsePushedRequest(rows.pushed.digest))
    protocol.methods = rows.session.methods
    answer = protocol.create_authorization_response(request.request, grant_user=rows.account, grant=grant)
    location = with_issuer(request.issuer, answer.headers["location"])
    return SendBack(location, protocol.effects, action=action_of(request.redirect_uri, request.data))
