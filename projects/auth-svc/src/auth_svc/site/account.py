"""`/account`: who one is, where one is signed in, a new password, signing out."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import accounts, audit, sessions
from auth_svc.accounts import Account
from auth_svc.audit import Actor
from auth_svc.pages.account import account_page
from auth_svc.pages.notices import signed_out_page
from auth_svc.passwords import SHORTEST, PasswordRejected
from auth_svc.service import address_of, service_of
from auth_svc.sessions import Session
from auth_svc.site.browser import Visitor, read_page_form, redirect, render, sign_out_browser, visitor_of
from lib_events.clock import to_datetime
from lib_events.database import Connection

BROWSERS = ("Firefox", "Edg", "Chrome", "Safari", "curl")  # in this order: they name one another
SIGN_IN = "/login?next=%2Faccount"


async def account(request: Request) -> Response:
    """Show the account."""
    visitor = await visitor_of(request)
    return redirect(SIGN_IN) if visitor.account is None else await _show(request, visitor, visitor.account)


async def change_password(request: Request) -> Response:
    """Check the current password and set a new one; every other sign-in ends."""
    service, visitor = service_of(request), await visitor_of(request)
    if visitor.account is None or visitor.session is None:
        return redirect(SIGN_IN)
    form = await read_page_form(request, visitor)
    key, address = visitor.account.id, address_of(request)
    service.sign_in_limits.begin(key, address)
    if not await service.passwords.verify(form.get("current_password", ""), visitor.account.password_hash):
        return await _show(request, visitor, visitor.account, error="The current password is wrong.", status=422)
    service.sign_in_limits.succeeded(key, address)
    try:
        fresh = await service.passwords.hash(form.get("new_password", ""))
    except PasswordRejected as error:
        return await _show(request, visitor, visitor.account, error=str(error), status=422)
    actor = service.actor(request, visitor.account.id)
    if not await service.database.transact(_set_own_password, visitor.account.id, visitor.session.id, fresh, actor):
        return redirect(SIGN_IN)
    return await _show(request, visitor, visitor.account, done="The password is changed.")


async def end_session(request: Request) -> Response:
    """Sign another browser out."""
    service, visitor = service_of(request), await visitor_of(request)
    if visitor.account is None:
        return redirect(SIGN_IN)
    form = await read_page_form(request, visitor)
    actor = service.actor(request, visitor.account.id)
    await service.database.transact(_end_own, form.get("session", ""), visitor.account.id, actor)
    return redirect("/account")


async def sign_out(request: Request) -> Response:
    """Sign this browser out."""
    service, visitor = service_of(request), await visitor_of(request)
    if visitor.account is None or visitor.session is None:
        return redirect(SIGN_IN)
    await read_page_form(request, visitor)
    actor = service.actor(request, visitor.account.id)
    await service.database.transact(end_and_record, visitor.session.id, actor)
    response = render(request, signed_out_page())
    sign_out_browser(response, service.issuer)
    return response


def end_and_record(connection: Connection, session_id: str, actor: Actor) -> None:
    """End a session because its owner wants it."""
    if sessions.end(connection, session_id, "signed out", actor.at):
        audit.record(connection, actor, "session.ended", about=session_id)


def _set_own_password(connection: Connection, user_id: str, session_id: str, fresh: str, actor: Actor) -> bool:
    """Set a password unless the sign-in that does so has ended meanwhile; returns whether it is set."""
    accounts.lock(connection, user_id)  # first the person, then their sessions: whoever ends them does the same
    if not sessions.touch(connection, session_id):
        return False
    accounts.set_password(connection, user_id, fresh, actor, session_id)
    return True


def _end_own(connection: Connection, session_id: str, user_id: str, actor: Actor) -> None:
    session = sessions.find(connection, session_id)
    if session is not None and session.user_id == user_id:
        end_and_record(connection, session_id, actor)


async def _show(
    request: Request,
    visitor: Visitor,
    account: Account,
    *,
    done: str | None = None,
    error: str | None = None,
    status: int = 200,
) -> Response:
    service = service_of(request)
    alive: Sequence[Session] = await service.database.read(sessions.alive_of_user, account.id, service.clock.micros())
    page = account_page(
        csrf=visitor.csrf,
        username=account.username,
        email=account.email,
        roles=account.roles,
        sessions=[_line(session, visitor) for session in alive],
        shortest=SHORTEST,
        done=done,
        error=error,
    )
    return render(request, page, visitor=visitor, status=status)


def _line(session: Session, visitor: Visitor) -> dict[str, object]:
    agent = session.user_agent or ""
    browser = next((name for name in BROWSERS if name in agent), "Unknown browser")
    return {
        "id": session.id,
        "browser": {"Edg": "Edge"}.get(browser, browser),
        "address": session.address or "unknown address",
        "since": to_datetime(session.authenticated_at),
        "current": visitor.session is not None and session.id == visitor.session.id,
    }
