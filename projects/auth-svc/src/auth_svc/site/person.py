"""Who is signed in on a page of the account, and whether it is really them who ask for something grave."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.audit import Actor
from auth_svc.factors import held
from auth_svc.people import accounts, sessions
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import MICROS, Session
from auth_svc.service import address_of, service_of
from auth_svc.site.browser import PageRefused, Visitor, confirm_url, redirect, visitor_of, way_on
from lib_events.database import Connection

FRESH_SECONDS = 300
WRONG_PASSWORD = "The current password is wrong."  # noqa: S105 - a text


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in."""

    visitor: Visitor
    account: Account
    session: Session

    async def commit[R](self, request: Request, act: Callable[[Connection, Account, Actor], R]) -> R:
        """Let `act` happen in a transaction, unless the sign-in that wants it has ended meanwhile."""
        service = service_of(request)
        actor = service.actor(request, self.account.id)
        return await service.database.transact(in_session, self.session.id, self.account.id, act, actor)


type PersonsHandler = Callable[[Request, Person], Awaitable[Response]]


def for_people(handler: PersonsHandler) -> Callable[[Request], Awaitable[Response]]:
    """Let `handler` answer whoever is signed in; everybody else signs in first."""

    @wraps(handler)
    async def answer(request: Request) -> Response:
        visitor = await visitor_of(request)
        if visitor.account is None or visitor.session is None:
            return redirect(f"/login?next={quote(way_on(request.url.path), safe='')}")
        return await handler(request, Person(visitor, visitor.account, visitor.session))

    return answer


def in_session[R](
    connection: Connection, session: str, user_id: str, act: Callable[[Connection, Account, Actor], R], actor: Actor
) -> R:
    """First the person, then their session: whoever ends them, or adds a factor, does the same.

    Raises `PageRefused` when the session has ended, or has not shown a factor that the account has by now.
    """
    account = accounts.enabled(accounts.lock(connection, user_id))
    living = sessions.find(connection, session) if sessions.touch(connection, session) else None
    if account is None or living is None:
        raise PageRefused(403, "You were signed out meanwhile", "Nothing was changed. Sign in and try again.")
    if held.lacks_factor(connection, user_id, living.methods):
        text = "Nothing was changed. Sign in with it and try again."
        raise PageRefused(403, "Your account has a second factor by now", text)
    return act(connection, account, actor)


def is_fresh(session: Session | None, now: int) -> bool:
    """Whether somebody proved who they are a moment ago; a clock that was set back makes nothing fresh."""
    return session is not None and abs(now - session.authenticated_at) <= FRESH_SECONDS * MICROS


def missing_sign_in(request: Request, person: Person, path: str) -> Response | None:
    """Send who has no password to be asked for, and an old sign-in, to sign in once more; None: nothing is missing."""
    if person.account.password_hash is not None or is_fresh(person.session, service_of(request).clock.micros()):
        return None
    return redirect(confirm_url(path))


async def doubt(request: Request, person: Person, password: str) -> str | None:
    """Say why it may be somebody else who sits there: a wrong password. Who has none has just signed in."""
    service, account = service_of(request), person.account
    if account.password_hash is None:
        return None
    address = address_of(request)
    service.limits.sign_ins.begin(account.id, address)
    service.limits.known_browsers.begin(person.session.id)  # whoever has stolen a session guesses no further
    if not await service.passwords.verify(password, account.password_hash):
        return WRONG_PASSWORD
    service.limits.sign_ins.succeeded(account.id, address)
    service.limits.known_browsers.forget(person.session.id)
    return None
