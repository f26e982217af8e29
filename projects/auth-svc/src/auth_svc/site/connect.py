"""`/login/connect`: who came from elsewhere with the address of an account here proves once that it is theirs.

They sign in as always: password, passkey, second factor. Then they are asked, and only a press of the button connects:
having signed in is not having wanted it.
"""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import opaque
from auth_svc.audit import Actor
from auth_svc.endpoints.authorize import client_behind
from auth_svc.pages.upstream import CONNECT, connect_page, other_account_page
from auth_svc.people.accounts import Account
from auth_svc.proving.assurance import ELSEWHERE
from auth_svc.service import service_of
from auth_svc.site import sign_in
from auth_svc.site.browser import (
    PageRefused,
    arrival_cookie_of,
    give_arrival_cookie,
    read_page_form,
    redirect,
    render,
    take_arrival_cookie,
    visitor_of,
)
from auth_svc.site.new_session import SignedInElsewhere, start_session
from auth_svc.site.person import is_fresh
from auth_svc.site.security import Change
from auth_svc.upstreams import arrivals, providers
from auth_svc.upstreams.arrivals import WaitingArrival
from auth_svc.upstreams.providers import ArrivalRefused
from lib_events.database import Connection

NOT_YOURS = "Sign in to the account that has the address, or go on without connecting anything."


def wait_for_proof(request: Request, cookie: str) -> Response:
    """Send the browser of an arrival that waits to where it is proven."""
    response = redirect(CONNECT)
    give_arrival_cookie(response, service_of(request).issuer, cookie)
    return response


def new_cookie() -> str:
    """What ties an arrival to its browser."""
    return opaque.new_secret()


async def connect_form(request: Request) -> Response:
    """Ask for the sign-in, then for the press of the button."""
    service, visitor = service_of(request), await visitor_of(request)
    waiting = await _waiting(request)
    if visitor.account is None or not is_fresh(visitor.session, service.clock.micros()):
        return await sign_in.show(request, visitor, CONNECT)
    csrf, username = visitor.csrf, visitor.account.username
    _, targets = await client_behind(service, waiting.way_on)
    if await service.database.read(arrivals.belongs_to, waiting, visitor.account):
        page = connect_page(csrf=csrf, waiting=waiting, username=username)
    else:
        page = other_account_page(csrf=csrf, waiting=waiting, username=username)
    return render(request, page, visitor=visitor, form_targets=targets)


async def connect(request: Request) -> Response:
    """Connect the account, for whoever has just signed in to it."""
    service, visitor = service_of(request), await visitor_of(request)
    if visitor.account is None or not is_fresh(visitor.session, service.clock.micros()):
        return redirect(CONNECT)
    form = await read_page_form(request, visitor)
    wanted = Change(request, visitor, visitor.account, service.actor(request, visitor.account.id), form)
    try:
        target = await wanted.commit(partial(_connect, cookie=arrival_cookie_of(request)))
    except ArrivalRefused as error:
        raise PageRefused(403, "It cannot be connected", str(error)) from error
    return _done(request, redirect(target))


async def make_account(request: Request) -> Response:
    """Make an account of its own for who says that the one with the address is not theirs."""
    service, visitor = service_of(request), await visitor_of(request)
    await read_page_form(request, visitor)
    try:
        cookie, actor = arrival_cookie_of(request), service.actor(request)
        waiting, account = await service.database.transact(_make_account, cookie, actor)
    except ArrivalRefused as error:
        raise PageRefused(403, "You cannot sign in like that", str(error)) from error
    elsewhere = SignedInElsewhere(waiting.upstream, waiting.arrival.authenticated_at, None)
    response = await start_session(request, visitor, account, waiting.way_on, methods=(ELSEWHERE,), elsewhere=elsewhere)
    return _done(request, response)


def _connect(connection: Connection, account: Account, actor: Actor, *, cookie: str) -> str:
    """Return where the person was going."""
    waiting = arrivals.take(connection, cookie, actor.at)
    if waiting is None:
        raise _over()
    if not arrivals.belongs_to(connection, waiting, account):
        raise PageRefused(403, "Another account has that address", NOT_YOURS)
    providers.link(connection, account, actor, upstream=waiting.upstream, arrival=waiting.arrival)
    return waiting.way_on


def _make_account(connection: Connection, cookie: str, actor: Actor) -> tuple[WaitingArrival, Account]:
    waiting = arrivals.take(connection, cookie, actor.at)
    if waiting is None:
        raise _over()
    return waiting, providers.make_another(connection, waiting.upstream, waiting.arrival, actor)


async def _waiting(request: Request) -> WaitingArrival:
    service, cookie = service_of(request), arrival_cookie_of(request)
    waiting = await service.database.read(arrivals.find, cookie, service.clock.micros())
    if waiting is None:
        raise _over()
    return waiting


def _done(request: Request, response: Response) -> Response:
    take_arrival_cookie(response, service_of(request).issuer)
    return response


def _over() -> PageRefused:
    return PageRefused(400, "That sign-in is over", "It took too long, or began in another window. Begin again.")
