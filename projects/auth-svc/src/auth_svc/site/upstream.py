"""`/login/upstream/NAME`: to another provider and back, to sign in or to connect it with an account."""

import json
import logging
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import delete, insert, select
from starlette.requests import Request
from starlette.responses import Response

from auth_svc import opaque
from auth_svc.audit import Actor
from auth_svc.endpoints.authorize import oldest_sign_in
from auth_svc.pages.upstream import CONNECT, go_on_page
from auth_svc.people.accounts import Account
from auth_svc.protocol.authorization_checks import WAY_BACK_SECONDS
from auth_svc.protocol.families import MICROS
from auth_svc.proving.assurance import ELSEWHERE
from auth_svc.rate_limits import network_of
from auth_svc.service import AuthService, address_of, service_of
from auth_svc.site import sign_in
from auth_svc.site.browser import (
    AGAIN,
    PageRefused,
    Visitor,
    give_upstream_cookie,
    read_once,
    redirect,
    render,
    upstream_cookie_of,
    visitor_of,
    way_on,
)
from auth_svc.site.connect import new_cookie, wait_for_proof
from auth_svc.site.new_session import SignedInElsewhere, SignInTooOld, start_session
from auth_svc.site.person import is_fresh
from auth_svc.site.security import ONLY_WAY_IN, Change, change, show, to_sign_in
from auth_svc.site.security import PATH as SECURITY
from auth_svc.tables import upstream_sign_ins
from auth_svc.upstreams import arrivals, freshness, providers
from auth_svc.upstreams.arrivals import WaitingArrival
from auth_svc.upstreams.client import UpstreamFailed, UpstreamRefused
from auth_svc.upstreams.providers import Arrival, ArrivalRefused, Upstream
from lib_auth.client import PendingAuthorization
from lib_events.database import Connection

logger = logging.getLogger(__name__)

LIFETIME_MICROS = 600 * MICROS
PURPOSE = "sign-in with another provider"
ACCOUNT = "/account"
TOO_OLD = (
    "{0} did not say that you have signed in there just now, and this takes that. "
    "Try again, or sign in here with your password or a passkey."
)


@dataclass(frozen=True, slots=True)
class _Journey:
    """A browser on its way to another provider and back."""

    upstream_id: str
    user_id: str | None  # who wants to connect it; None: somebody signs in
    sealed: bytes = field(repr=False)
    way_on: str
    since: int | None  # when they must have signed in there at the earliest
    left_at: int


async def leave(request: Request) -> Response:
    """Send the browser to another provider to sign in there."""
    target = way_on(request.query_params.get("next"))
    location, cookie = await _begin(request, request.path_params["upstream"], None, target)
    response = redirect(location)
    give_upstream_cookie(response, service_of(request).issuer, cookie)
    return response


@change
async def connect(wanted: Change) -> Response:
    """Let somebody connect their account; a page in between, for forms of ours must not lead to strangers."""
    request, upstream_id = wanted.request, wanted.request.path_params["upstream"]
    location, cookie = await _begin(request, upstream_id, wanted.account.id, SECURITY)
    upstream = await _find(wanted.service, upstream_id)
    response = render(request, go_on_page(name=upstream.name, location=location), visitor=wanted.visitor)
    give_upstream_cookie(response, wanted.service.issuer, cookie)
    return response


@change
async def disconnect(wanted: Change) -> Response:
    """Take a connection away."""
    issuer = wanted.form.get("issuer", "")
    if await wanted.commit(partial(providers.unlink, issuer=issuer)):
        return redirect(SECURITY)
    return await show(wanted.request, wanted.visitor, wanted.account, error=ONLY_WAY_IN)


async def arrive(request: Request) -> Response:
    """Take the answer of another provider: once, in the browser that left, and for the provider it went to."""
    service, upstream_id = service_of(request), request.path_params["upstream"]
    answer = read_once(request.url.query)
    browser, state, now = upstream_cookie_of(request), answer.get("state", ""), service.clock.micros()
    journey = await service.database.transact(_take, state, browser, upstream_id, now)
    if journey is None:
        raise _begin_again()
    upstream = await _find(service, upstream_id)
    redirect_uri = callback_of(service, upstream_id)
    kept = json.loads(service.sealing_key.unseal(journey.sealed, purpose=PURPOSE))
    pending = PendingAuthorization("", redirect_uri, state, kept["nonce"], kept["verifier"])
    secret = service.sealing_key.unseal(upstream.sealed, purpose=upstream.purpose)
    try:
        arrival = await service.upstream_client.finish(upstream, secret, pending, answer, journey.left_at)
        if journey.user_id is not None:
            return await _connect(request, upstream, journey.user_id, arrival)
        actor = service.actor(request)
        cookie = new_cookie()
        waiting = WaitingArrival(upstream, arrival, ACCOUNT if journey.way_on == CONNECT else journey.way_on)
        account = await service.database.transact(_receive, waiting, cookie, actor)
    except UpstreamRefused as error:
        text = "It was cancelled, or refused there. Try again, or sign in another way."
        raise PageRefused(403, f"{upstream.name} let nobody in", text, code=str(error)[:60]) from error
    except UpstreamFailed as error:
        raise _unavailable(upstream, error) from error
    except ArrivalRefused as error:
        raise PageRefused(403, "You cannot sign in like that", str(error)) from error
    if account is None:
        return wait_for_proof(request, cookie)
    return await _start_session(request, upstream, account, journey, arrival)


def callback_of(service: AuthService, upstream_id: str) -> str:
    """Where that provider sends browsers back to: one address for each, so that none answers for another."""
    return f"{service.issuer.url}/login/upstream/{upstream_id}/callback"


async def _begin(request: Request, upstream_id: str, user_id: str | None, target: str) -> tuple[str, str]:
    """Return where the browser goes and the cookie it takes along."""
    service = service_of(request)
    service.limits.upstreams.begin(network_of(address_of(request)))
    visitor, now = await visitor_of(request), service.clock.micros()
    since = await _since(service, target, visitor, now)
    # Who is signed in here and leaves has to prove once more who they are: there, too, nothing is taken as given.
    asked = freshness.parameters(since, now, again=visitor.session is not None)
    upstream = await _find(service, upstream_id)
    try:
        pending = await service.upstream_client.begin(upstream, callback_of(service, upstream_id), asked)
    except UpstreamFailed as error:
        raise _unavailable(upstream, error) from error
    kept = json.dumps({"nonce": pending.nonce, "verifier": pending.verifier})
    journey = _Journey(upstream_id, user_id, service.sealing_key.seal(kept, purpose=PURPOSE), target, since, now)
    cookie = opaque.new_secret()
    try:
        await service.database.transact(_keep, upstream, journey, pending.state, cookie)
    except ArrivalRefused as error:  # it was removed while it was asked
        raise PageRefused(404, "No such provider", str(error)) from error
    return pending.url, cookie


async def _since(service: AuthService, target: str, visitor: Visitor, now: int) -> int | None:
    """When a sign-in on the way to `target` must have been made at the earliest; None: whenever."""
    is_new = target == CONNECT or target.endswith(AGAIN)
    seconds = 0 if is_new else await oldest_sign_in(service, target, visitor)
    if seconds is None:
        return None
    # Of a request that was sent here for a new one, the way back says no less than this.
    return now if seconds <= WAY_BACK_SECONDS else now - seconds * MICROS


async def _start_session(
    request: Request, upstream: Upstream, account: Account, journey: _Journey, arrival: Arrival
) -> Response:
    visitor, elsewhere = await visitor_of(request), SignedInElsewhere(upstream, arrival.authenticated_at, journey.since)
    try:
        return await start_session(request, visitor, account, journey.way_on, methods=(ELSEWHERE,), elsewhere=elsewhere)
    except SignInTooOld:
        error = TOO_OLD.format(upstream.name)
        return await sign_in.show(request, visitor, journey.way_on, error=error, status=403)


async def _connect(request: Request, upstream: Upstream, user_id: str, arrival: Arrival) -> Response:
    service, visitor = service_of(request), await visitor_of(request)
    fresh = is_fresh(visitor.session, service.clock.micros())
    if visitor.account is None or visitor.account.id != user_id or not fresh:
        return to_sign_in()
    wanted = Change(request, visitor, visitor.account, service.actor(request, user_id), {})
    await wanted.commit(partial(providers.link, upstream=upstream, arrival=arrival))
    return redirect(SECURITY)


async def _find(service: AuthService, upstream_id: str) -> Upstream:
    upstream = await service.database.read(providers.find, upstream_id)
    if upstream is None:
        raise PageRefused(404, "No such provider", "Sign in another way.")
    return upstream


def _receive(connection: Connection, waiting: WaitingArrival, cookie: str, actor: Actor) -> Account | None:
    """Return who came; None when they have to prove first that the account with their address is theirs."""
    may_be_new = arrivals.owner_id(connection, waiting.arrival) is None
    account = providers.receive(connection, waiting.upstream, waiting.arrival, actor, may_be_new=may_be_new)
    if account is None:
        arrivals.keep(connection, waiting, cookie, actor.at)
    return account


def _keep(connection: Connection, upstream: Upstream, journey: _Journey, state: str, cookie: str) -> None:
    providers.lock(connection, upstream)
    connection.execute(
        insert(upstream_sign_ins).values(
            digest=opaque.digest(state),
            browser=opaque.digest(cookie),
            upstream_id=journey.upstream_id,
            user_id=journey.user_id,
            sealed=journey.sealed,
            way_on=journey.way_on,
            since=journey.since,
            expires_at=journey.left_at + LIFETIME_MICROS,
        )
    )


def _take(connection: Connection, state: str, cookie: str, upstream_id: str, now: int) -> _Journey | None:
    """Use a journey up; of two that come back with one state, one gets it."""
    rows = upstream_sign_ins.c
    same = (rows.digest == opaque.digest(state)) & (rows.browser == opaque.digest(cookie))
    fitting = same & (rows.upstream_id == upstream_id) & (rows.expires_at > now)
    row = connection.execute(select(upstream_sign_ins).where(fitting)).one_or_none()
    if row is None or not connection.execute(delete(upstream_sign_ins).where(fitting)).rowcount:
        return None
    left_at = row.expires_at - LIFETIME_MICROS
    return _Journey(row.upstream_id, row.user_id, row.sealed, row.way_on, row.since, left_at)


def _unavailable(upstream: Upstream, error: Exception) -> PageRefused:
    logger.warning("upstream %s failed: %s", upstream.id, error)
    text = "It does not answer, or not as it should. Try again later, or sign in another way."
    return PageRefused(502, f"{upstream.name} cannot be reached", text)


def _begin_again() -> PageRefused:
    return PageRefused(400, "That sign-in is over", "It took too long, or began in another window. Begin again.")
