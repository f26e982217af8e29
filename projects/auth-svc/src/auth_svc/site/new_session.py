"""The end of every sign-in: whoever proved who they are gets a session, and their browser its cookie."""

from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import accounts, audit, opaque, sessions
from auth_svc.accounts import Account
from auth_svc.audit import Actor
from auth_svc.service import act_as, service_of
from auth_svc.sessions import Session
from auth_svc.site.browser import PageRefused, Visitor, redirect, sign_in_browser
from lib_events.database import Connection


@dataclass(frozen=True, slots=True)
class _Proven:
    """A sign-in that is to become a session."""

    account: Account  # as it was when the password was checked
    before: Session | None  # what the browser had
    cookie: str = field(repr=False)
    user_agent: str


async def start_session(request: Request, visitor: Visitor, account: Account, target: str) -> Response:
    """Sign the browser in and send it on to `target`; raises `PageRefused` when the account was changed meanwhile."""
    service = service_of(request)
    act_as(account.id)
    new = _Proven(account, visitor.session, opaque.new_secret(), request.headers.get("user-agent", ""))
    if not await service.database.transact(_start, new, service.actor(request, account.id)):
        raise PageRefused(403, "You cannot sign in", "The account was changed meanwhile. Try again.")
    response = redirect(target)
    sign_in_browser(response, service.issuer, new.cookie)
    return response


def _start(connection: Connection, new: _Proven, actor: Actor) -> bool:
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
