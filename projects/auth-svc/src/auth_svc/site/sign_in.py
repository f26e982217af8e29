"""`/login`: a password becomes a session."""

from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import audit, first_start
from auth_svc.audit import Actor
from auth_svc.endpoints.authorize import client_behind
from auth_svc.pages.sign_in import sign_in_page
from auth_svc.people import accounts
from auth_svc.people.accounts import Account, username_key
from auth_svc.rate_limits import TooManyAttempts
from auth_svc.service import AuthService, address_of, service_of
from auth_svc.site.browser import (
    Visitor,
    read_page_form,
    read_pairs,
    render,
    visitor_of,
    way_on,
)
from auth_svc.site.ceremonies import options_to_sign_in
from auth_svc.site.new_session import start_session
from auth_svc.upstreams import providers
from lib_events.database import Connection

AGAIN = "That is a change to how you sign in. Confirm that it is you."
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
    again = AGAIN if "again" in request.query_params and visitor.account is not None else None
    username = visitor.account.username if again and visitor.account is not None else hint[:64]
    return await show(request, visitor, target, username=username, error=again)


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
        return await show(request, visitor, attempt.way_on, error=text, status=429, retry_after=error.retry_after)
    if account is None:
        await service.database.transact(_record_failure, attempt.username, service.actor(request))
        return await show(request, visitor, attempt.way_on, username=attempt.username, error=WRONG, status=401)
    service.sign_in_limits.succeeded(key, address)
    first_start.forget_initial_password(service.settings, account.username)
    return await start_session(request, visitor, account, attempt.way_on)


async def check_password(service: AuthService, username: str, password: str) -> Account | None:
    """Return the account if the password is right; an unknown user takes as long as a wrong password."""
    account = await service.database.read(accounts.find_by_username, username)
    kept = account.password_hash if account is not None and account.enabled else None
    if not await service.passwords.verify(password, kept):
        return None
    if account is not None and kept is not None and service.passwords.needs_rehash(kept):
        fresh = await service.passwords.rehash(password)
        await service.database.transact(accounts.rehash, account.id, kept, fresh)
        return replace(account, password_hash=fresh)
    return account


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
    client, targets = await client_behind(service, target)
    passkey_options = options_to_sign_in(request, visitor)
    page = sign_in_page(
        csrf=visitor.csrf,
        way_on=target,
        client=client,
        username=username,
        error=error,
        registration=service.settings.registration == "open",
        passkey_options=passkey_options,
        upstreams=await service.database.read(providers.every),
    )
    scripted = passkey_options is not None
    response = render(request, page, visitor=visitor, status=status, form_targets=targets, scripted=scripted)
    if retry_after is not None:
        response.headers["retry-after"] = str(retry_after)
    return response


def _record_failure(connection: Connection, username: str, actor: Actor) -> None:
    """Name the account if there is one; people type passwords into the wrong field."""
    account = accounts.find_by_username(connection, username)
    audit.record(connection, actor, "session.refused", about=account.id if account else None)
