"""`/login` and `/register`: a password becomes a session."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import accounts, audit, first_start, opaque, sessions
from auth_svc.accounts import Account, AccountRejected, NewAccount, username_key
from auth_svc.audit import Actor
from auth_svc.authorize_endpoint import client_behind
from auth_svc.browser import (
    PageRefused,
    Visitor,
    read_page_form,
    read_pairs,
    redirect,
    render,
    sign_in_browser,
    visitor_of,
    way_on,
)
from auth_svc.pages.sign_in import registration_page, sign_in_page
from auth_svc.passwords import SHORTEST, PasswordRejected
from auth_svc.rate_limits import TooManyAttempts
from auth_svc.service import AuthService, act_as, address_of, service_of
from auth_svc.sessions import Session
from lib_events.database import Connection

WRONG = "The user name or the password is wrong."


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One sign-in form."""

    username: str
    password: str = field(repr=False)
    way_on: str


@dataclass(frozen=True, slots=True)
class _SignIn:
    """A sign-in whose password was right."""

    account: Account  # as it was when the password was checked
    before: Session | None  # what the browser had
    cookie: str = field(repr=False)
    user_agent: str


async def sign_in_form(request: Request) -> Response:
    """Show the sign-in page."""
    visitor = await visitor_of(request)
    target = way_on(request.query_params.get("next"))
    hint = dict(read_pairs(target.partition("?")[2])).get("login_hint", "")
    return await _show(request, visitor, target, username=hint[:64])


async def sign_in(request: Request) -> Response:
    """Check the password and start a session."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    attempt = _Attempt(form.get("username", ""), form.get("password", ""), way_on(form.get("next")))
    key, address = username_key(attempt.username)[:64], address_of(request)
    try:
        service.sign_in_limits.begin(key, address)
        account = await check_password(service, attempt.username, attempt.password)
    except TooManyAttempts as error:
        text = f"Too many attempts. Wait {error.wait} and try again."
        return await _show(request, visitor, attempt.way_on, error=text, status=429, retry_after=error.retry_after)
    if account is None:
        await service.database.transact(_record_failure, attempt.username, service.actor(request))
        return await _show(request, visitor, attempt.way_on, username=attempt.username, error=WRONG, status=401)
    service.sign_in_limits.succeeded(key, address)
    first_start.forget_initial_password(service.settings, account.username)
    return await _start_session(request, visitor, account, attempt.way_on)


async def check_password(service: AuthService, username: str, password: str) -> Account | None:
    """Return the account if the password is right; an unknown user takes as long as a wrong password."""
    account = await service.database.read(accounts.find_by_username, username)
    kept = account.password_hash if account is not None and account.enabled else None
    if not await service.passwords.verify(password, kept):
        return None
    if account is not None and kept is not None and service.passwords.needs_rehash(kept):
        fresh = await service.passwords.hash(password)
        await service.database.transact(accounts.rehash, account.id, kept, fresh)
        return replace(account, password_hash=fresh)
    return account


async def registration_form(request: Request) -> Response:
    """Show the registration page where people may make themselves an account."""
    _check_open(service_of(request))
    return await _show_registration(request, await visitor_of(request), way_on(request.query_params.get("next")))


async def register(request: Request) -> Response:
    """Make an account and sign it in."""
    service, visitor = service_of(request), await visitor_of(request)
    _check_open(service)
    form = await read_page_form(request, visitor)
    target = way_on(form.get("next"))
    try:
        service.sign_in_limits.begin("registration", address_of(request))
        password_hash = await service.passwords.hash(form.get("password", ""))
        new = NewAccount(form.get("username", ""), password_hash, form.get("email"))
        account = await service.database.transact(accounts.register, new, service.actor(request))
    except (AccountRejected, PasswordRejected) as error:
        at = error.field if isinstance(error, AccountRejected) else "password"
        return await _show_registration(request, visitor, target, form=form, errors={at: str(error)})
    return await _start_session(request, visitor, account, target)


async def _show(
    request: Request,
    visitor: Visitor,
    target: str,
    *,
    username: str = "",
    error: str | None = None,
    status: int = 200,
    retry_after: int | None = None,
) -> Response:
    service = service_of(request)
    client, targets = await client_behind(service, target)
    page = sign_in_page(
        csrf=visitor.csrf,
        way_on=target,
        client=client,
        username=username,
        error=error,
        registration=service.settings.registration,
    )
    response = render(request, page, visitor=visitor, status=status, form_targets=targets)
    if retry_after is not None:
        response.headers["retry-after"] = str(retry_after)
    return response


async def _show_registration(
    request: Request,
    visitor: Visitor,
    target: str,
    *,
    form: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Response:
    _, targets = await client_behind(service_of(request), target)
    typed = form or {}
    page = registration_page(
        csrf=visitor.csrf,
        way_on=target,
        username=typed.get("username", ""),
        email=typed.get("email", ""),
        field_errors=errors,
        shortest=SHORTEST,
    )
    return render(request, page, visitor=visitor, status=422 if errors else 200, form_targets=targets)


async def _start_session(request: Request, visitor: Visitor, account: Account, target: str) -> Response:
    service = service_of(request)
    act_as(account.id)
    new = _SignIn(account, visitor.session, opaque.new_secret(), request.headers.get("user-agent", ""))
    if not await service.database.transact(_start, new, service.actor(request, account.id)):
        raise PageRefused(403, "You cannot sign in", "The account was changed meanwhile. Try again.")
    response = redirect(target)
    sign_in_browser(response, service.issuer, new.cookie)
    return response


def _start(connection: Connection, new: _SignIn, actor: Actor) -> bool:
    """Replace whatever session the browser had; False when what was checked is no longer so.

    Hashing takes a while. A password that was set meanwhile has ended every session of the old one, and must end this.
    """
    account = accounts.lock(connection, new.account.id)
    if account is None or not account.enabled or account.password_hash != new.account.password_hash:
        return False
    if new.before is not None:
        sessions.end(connection, new.before.id, "signed in again", actor.at)
    audit.record(connection, actor, "session.started", about=account.id)
    sessions.start(connection, new.cookie, account.id, actor, new.user_agent)
    return True


def _record_failure(connection: Connection, username: str, actor: Actor) -> None:
    """Name the account if there is one; people type passwords into the wrong field."""
    account = accounts.find_by_username(connection, username)
    audit.record(connection, actor, "session.refused", about=account.id if account else None)


def _check_open(service: AuthService) -> None:
    if not service.settings.registration:
        raise PageRefused(404, "No such page", "Ask an administrator for an account.")
