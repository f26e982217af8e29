"""`/login`: a password becomes a session."""

from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import audit, first_start
from auth_svc.audit import Actor
from auth_svc.endpoints.authorize import client_behind
from auth_svc.factors import held
from auth_svc.mail import texts
from auth_svc.pages.sign_in import sign_in_page
from auth_svc.pages.upstream import CONNECT
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.people.passwords import PasswordsBusy
from auth_svc.people.user_names import folded
from auth_svc.proving import guesses
from auth_svc.proving.known_browsers import KnownBrowser
from auth_svc.rate_limits import TooManyAttempts
from auth_svc.service import AuthService, address_of, service_of
from auth_svc.site.browser import (
    AGAIN,
    Visitor,
    arrival_cookie_of,
    known_browser_of,
    read_page_form,
    read_pairs,
    render,
    visitor_of,
    way_on,
)
from auth_svc.site.ceremonies import options_to_sign_in
from auth_svc.site.new_session import PasswordStopped, start_session
from auth_svc.upstreams import arrivals, providers
from auth_svc.upstreams.arrivals import WaitingArrival
from lib_events.database import Connection

CONFIRM = "This takes a sign-in of just now. Confirm that it is you."
PASSWORD = "password"  # noqa: S105 - what is stopped, in events
WRONG = "The user name or the password is wrong."


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One sign-in form."""

    username: str
    password: str = field(repr=False)
    way_on: str


async def sign_in_form(request: Request) -> Response:
    """Show the sign-in page."""
    visitor = await visitor_of(request)
    target = way_on(request.query_params.get("next"))
    hint = dict(read_pairs(target.partition("?")[2])).get("login_hint", "")
    again = CONFIRM if target.endswith(AGAIN) and visitor.account is not None else None
    username = visitor.account.username if again and visitor.account is not None else hint[:64]
    return await show(request, visitor, target, username=username, error=again)


async def sign_in(request: Request) -> Response:
    """Check the password and start a session."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    attempt = _Attempt(form.get("username", ""), form.get("password", ""), way_on(form.get("next")))
    key, address = folded(attempt.username)[:64], address_of(request)
    try:
        service.limits.sign_ins.begin(key, address)
    except TooManyAttempts as error:
        text = f"Too many attempts. Wait {error.wait} and try again."
        return await show(request, visitor, attempt.way_on, error=text, status=429, retry_after=error.retry_after)
    # A wrong password counts, whether or not that can be kept.
    with service.limits.sign_ins.unless_away(key, address), suppress(PasswordStopped):
        named = await service.database.look(accounts.find_by_username, attempt.username)
        browser = known_browser_of(request)
        is_known = named is not None and _knows(service, browser, named)
        with service.limits.known_browsers.unless_away(browser.id) if is_known else nullcontext():
            if (account := await _check(service, named, attempt, is_known=is_known)) is not None:
                response = await start_session(request, visitor, account, attempt.way_on, is_known=is_known)
                service.limits.sign_ins.succeeded(key, address)
                service.limits.known_browsers.forget(browser.id)
                first_start.forget_initial_password(service.settings, account.username)
                return response
    await service.database.transact(_record_failure, named, service.actor(request), is_known)
    return await show(request, visitor, attempt.way_on, username=attempt.username, error=WRONG, status=401)


def _knows(service: AuthService, browser: KnownBrowser, account: Account) -> bool:
    """Whether a browser is one of this person's, and has not been tried in too often."""
    knows = browser.knows(account.id, since=account.password_changed_at, now=service.clock.micros())
    return knows and service.limits.known_browsers.may(browser.id)


async def _check(service: AuthService, account: Account | None, attempt: _Attempt, *, is_known: bool) -> Account | None:
    """Return the account if the password is right; an unknown user takes as long as a wrong password.

    So does one whose password is not taken from this browser, because too many have guessed at it.
    """
    kept = account.password_hash if account is not None and account.enabled else None
    is_right = await service.passwords.verify(attempt.password, kept or service.decoys.choose(attempt.username))
    if account is None or kept is None or not is_right:
        return None
    if account.wrong_passwords >= guesses.MAX_IN_A_ROW and not is_known:
        return None
    return await _renewed(service, account, kept, attempt.password) if service.passwords.needs_rehash(kept) else account


async def _renewed(service: AuthService, account: Account, kept: str, password: str) -> Account:
    try:
        fresh = await service.passwords.rehash(password)
    except PasswordsBusy:
        return account  # the password was right: that is no reason to turn them away, and there is a next time
    await service.database.transact(accounts.rehash, account.id, kept, fresh)
    return replace(account, password_hash=fresh)


async def show(
    request: Request,
    visitor: Visitor,
    target: str,
    *,
    username: str = "",
    error: str | None = None,
    status: int = 200,
    retry_after: int | None = None,
) -> Response:
    """Show the sign-in page."""
    service = service_of(request)
    waiting = await _waiting_arrival(request, target)
    client, targets = await client_behind(service, waiting.way_on if waiting is not None else target)
    passkey_options = options_to_sign_in(request, visitor)
    page = sign_in_page(
        csrf=visitor.csrf,
        way_on=target,
        client=client,
        username=username,
        error=error,
        registration=service.settings.registration == "open",
        passkey_options=passkey_options,
        upstreams=await service.database.look(providers.every),
        waiting=waiting,
    )
    scripted = passkey_options is not None
    response = render(request, page, visitor=visitor, status=status, form_targets=targets, scripted=scripted)
    if retry_after is not None:
        response.headers["retry-after"] = str(retry_after)
    return response


async def _waiting_arrival(request: Request, target: str) -> WaitingArrival | None:
    """Return whom the sign-in is to be connected with, if that is what it is for."""
    if target != CONNECT:
        return None
    service = service_of(request)
    return await service.database.read(arrivals.find, arrival_cookie_of(request), service.clock.micros())


def _record_failure(connection: Connection, account: Account | None, actor: Actor, is_known: bool) -> None:  # noqa: FBT001
    """Name the account if there is one; people type passwords into the wrong field.

    Counting is one statement whether or not there is somebody to count it for.
    """
    about = account.id if account is not None else None
    audit.record(connection, actor, "session.refused", about=about)
    if is_known:
        return
    wrong = guesses.count(connection, about or "", guesses.PASSWORDS)
    if account is not None and wrong == guesses.MAX_IN_A_ROW:
        accounts.write_to(connection, account, texts.wrong_passwords(account.username, wrong), actor.at)
        held.tell_stopped(connection, account, PASSWORD, actor)
