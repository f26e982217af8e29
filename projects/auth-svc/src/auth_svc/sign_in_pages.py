"""`/login` and `/register`: a password becomes a session."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import accounts, audit, first_start, opaque, sessions
from auth_svc.accounts import Account, AccountRejected, NewAccount, username_key
from auth_svc.audit import Actor
from auth_svc.authorize_endpoint import redirect_origins
from auth_svc.browser import (
    PageRefused,
    Visitor,
    query_of,
    read_page_form,
    redirect,
    render,
    sign_in_browser,
    visitor_of,
    way_on,
)
from auth_svc.pages.sign_in import registration_page, sign_in_page
from auth_svc.passwords import SHORTEST, PasswordRejected, PasswordsBusy
from auth_svc.rate_limits import TooManyAttempts
from auth_svc.service import AuthService, act_as, address_of, service_of
from auth_svc.sessions import Session
from lib_events.database import Connection

WRONG = "The user name or the password is wrong."


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One sign-in form."""

    username: str
    password: str
    way_on: str


async def sign_in_form(request: Request) -> Response:
    """Show the sign-in page."""
    visitor = await visitor_of(request)
    target = way_on(request.query_params.get("next"))
    return await _show(request, visitor, target, username=dict(query_of(target)).get("login_hint", "")[:64])


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
        text = f"Too many attempts. Wait {_minutes(error.retry_after)} and try again."
        return await _show(request, visitor, attempt.way_on, error=text, status=429, retry_after=error.retry_after)
    except PasswordsBusy as error:
        raise PageRefused(
            503, "Too many sign-ins at once", "Try again in a moment.", retry_after=error.retry_after
        ) from error
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
    return account


async def registration_form(request: Request) -> Response:
    """Show the registration page where people may make themselves an account."""
    service, visitor = service_of(request), await visitor_of(request)
    _check_open(service)
    page = registration_page(csrf=visitor.csrf, way_on=way_on(request.query_params.get("next")), shortest=SHORTEST)
    return render(request, page, visitor=visitor)


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
        page = registration_page(
            csrf=visitor.csrf,
            way_on=target,
            username=form.get("username", ""),
            email=form.get("email", ""),
            field_errors={at: str(error)},
            shortest=SHORTEST,
        )
        return render(request, page, visitor=visitor, status=422)
    except (PasswordsBusy, TooManyAttempts) as error:
        raise PageRefused(503, "Too much at once", "Try again later.", retry_after=error.retry_after) from error
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
    origins, client = await redirect_origins(service, urlsplit(target).path, query_of(target))
    page = sign_in_page(
        csrf=visitor.csrf,
        way_on=target,
        client=client,
        username=username,
        error=error,
        registration=service.settings.registration,
    )
    response = render(request, page, visitor=visitor, status=status, form_targets=origins)
    if retry_after is not None:
        response.headers["retry-after"] = str(retry_after)
    return response


async def _start_session(request: Request, visitor: Visitor, account: Account, target: str) -> Response:
    """Replace whatever session the browser had: a sign-in never goes on with an old cookie."""
    service, cookie = service_of(request), opaque.new_secret()
    actor = service.actor(request, account.id)
    act_as(account.id)
    if visitor.session is not None:
        await service.database.transact(sessions.end, visitor.session.id, "signed in again", actor.at)
    agent = request.headers.get("user-agent", "")
    started = await service.database.transact(_start, account.id, cookie, actor, agent)
    if started is None:
        raise PageRefused(403, "You cannot sign in", "This account was disabled meanwhile.")
    response = redirect(target)
    sign_in_browser(response, service.issuer, cookie)
    return response


def _start(connection: Connection, user_id: str, cookie: str, actor: Actor, agent: str) -> Session | None:
    account = accounts.lock(connection, user_id)
    if account is None or not account.enabled:
        return None
    audit.record(connection, actor, "session.started", about=user_id)
    return sessions.start(connection, cookie, user_id, actor, agent)


def _record_failure(connection: Connection, username: str, actor: Actor) -> None:
    """Name the account if there is one; people type passwords into the wrong field."""
    account = accounts.find_by_username(connection, username)
    audit.record(connection, actor, "session.refused", about=account.id if account else None)


def _check_open(service: AuthService) -> None:
    if not service.settings.registration:
        raise PageRefused(404, "No such page", "Ask an administrator for an account.")


def _minutes(seconds: int) -> str:
    minutes = -(-seconds // 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"
