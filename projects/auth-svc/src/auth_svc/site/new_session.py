"""The end of every sign-in: whoever proved enough of who they are gets a session, and their browser its cookie."""

from dataclasses import dataclass, field
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import audit, opaque
from auth_svc.audit import Actor
from auth_svc.endpoints.authorize import answered_at_once
from auth_svc.factors import held
from auth_svc.people import accounts, devices, sessions
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import Session
from auth_svc.protocol.issuer import Issuer
from auth_svc.proving import guesses, sign_ins
from auth_svc.proving.assurance import PASSWORD, SEVERAL, acr_of
from auth_svc.proving.sign_ins import SignIn
from auth_svc.service import act_as, service_of
from auth_svc.site.browser import (
    PageRefused,
    Visitor,
    give_step_cookie,
    redirect,
    remember_browser,
    set_up_url,
    sign_in_browser,
)
from auth_svc.upstreams import providers
from auth_svc.upstreams.providers import ArrivalRefused, Upstream
from lib_events.database import Connection

SECOND_STEP = "/login/second"


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a session is made with."""

    cookie: str = field(repr=False)
    before: Session | None  # what the browser had
    user_agent: str
    tells: bool  # whether a new device is worth a mail
    lifetime_seconds: int

    @classmethod
    def of(cls, request: Request, visitor: Visitor) -> "NewSession":
        """The session that this browser may get."""
        service, agent = service_of(request), request.headers.get("user-agent", "")
        tells, lifetime = service.settings.mail_new_devices, service.issuer.session_seconds
        return cls(opaque.new_secret(), visitor.session, agent, tells, lifetime)


@dataclass(frozen=True, slots=True)
class _Proven:
    """A first step of a sign-in that went well."""

    account: Account  # as it was when the step was checked
    methods: tuple[str, ...]
    way_on: str
    new: NewSession
    is_known: bool  # the browser: they have signed in with it before
    elsewhere: "SignedInElsewhere | None"
    step_cookie: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedInElsewhere:
    """A first step that was taken at another provider, maybe long ago."""

    upstream: Upstream
    at: int  # or `UNTOLD`
    since: int | None  # when it must have been at the earliest


class SignInTooOld(Exception):
    """Somebody has signed in elsewhere, and it has to be shown that they did so just now: it was not."""


class PasswordStopped(Exception):
    """Too many wrong passwords came before the right one."""


async def start_session(
    request: Request,
    visitor: Visitor,
    account: Account,
    target: str,
    *,
    methods: tuple[str, ...] = (PASSWORD,),
    is_known: bool = False,
    elsewhere: SignedInElsewhere | None = None,
) -> Response:
    """Sign the browser in and send it on to `target`, by way of the second factor if the account has one.

    Raises `PageRefused` when the account was changed meanwhile, `PasswordStopped` and `SignInTooOld`.
    """
    service = service_of(request)
    act_as(account.id)
    new, step_cookie = NewSession.of(request, visitor), opaque.new_secret()
    proven = _Proven(account, methods, target, new, is_known, elsewhere, step_cookie)
    try:
        outcome = await service.database.transact(_start, proven, service.issuer, service.actor(request, account.id))
    except ArrivalRefused as error:
        raise PageRefused(403, "You cannot sign in like that", str(error)) from error
    match outcome:
        case "refused":
            raise PageRefused(403, "You cannot sign in", "The account was changed meanwhile. Try again.")
        case "stopped":
            raise PasswordStopped
        case "too old":
            raise SignInTooOld
        case "second step":
            response = redirect(SECOND_STEP)
            give_step_cookie(response, service.issuer, proven.step_cookie)
            return response
    response = redirect(outcome.way_on)
    sign_in_browser(response, service.issuer, proven.new.cookie)
    remember_browser(request, response, account.id)
    return response


def make_session(
    connection: Connection,
    account: Account,
    methods: tuple[str, ...],
    new: NewSession,
    actor: Actor,
    *,
    authenticated_at: int | None = None,
) -> Session:
    """Replace whatever session the browser had; its person has proven who they are just now, or elsewhere before."""
    if new.before is not None:
        sessions.end(connection, new.before.id, "signed in again", actor.at)
    audit.record(connection, actor, "session.started", about=account.id, acr=acr_of(methods))
    if new.tells:
        devices.tell_if_new(connection, account, new.user_agent, actor)
    return sessions.start(
        connection,
        new.cookie,
        account.id,
        actor,
        new.user_agent,
        methods=methods,
        authenticated_at=authenticated_at,
        lifetime_seconds=new.lifetime_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Started:
    """There is a session, and this is where the browser goes with it."""

    way_on: str


def _start(
    connection: Connection, proven: _Proven, issuer: Issuer, actor: Actor
) -> _Started | Literal["refused", "stopped", "second step", "too old"]:
    """Start a session, or keep what was proven until the second step; refuse when it is no longer so.

    What the sign-in was for is answered with it where nothing has to be asked first: one way and one commit less.
    Hashing takes a while. A password that was set meanwhile has ended every session of the old one, and must end this.
    """
    if proven.elsewhere is not None:
        providers.lock(connection, proven.elsewhere.upstream)  # whoever removes it ends what it began
    account = accounts.lock(connection, proven.account.id)
    if account is None or not account.enabled or account.password_hash != proven.account.password_hash:
        return "refused"
    if PASSWORD in proven.methods and account.wrong_passwords:
        if account.wrong_passwords >= guesses.MAX_IN_A_ROW and not proven.is_known:
            return "stopped"  # by those that came while this one was hashed
        guesses.forget(connection, account.id, guesses.PASSWORDS)
    if SEVERAL not in proven.methods and held.of_user(connection, account.id).any:
        sign_in = SignIn(opaque.digest(proven.step_cookie), account.id, proven.methods, proven.way_on)
        sign_ins.begin(connection, sign_in, actor.at)
        return "second step"
    elsewhere = proven.elsewhere  # who takes the second step here has proven something just now, whatever was before
    if elsewhere is not None and elsewhere.since is not None and elsewhere.at < elsewhere.since:
        return "too old"
    at = elsewhere.at if elsewhere is not None else None
    session = make_session(connection, account, proven.methods, proven.new, actor, authenticated_at=at)
    if SEVERAL not in proven.methods and issuer.needs_two_factors(account):
        return _Started(set_up_url(proven.way_on))
    visitor = Visitor(proven.new.cookie, session, account)
    location = answered_at_once(connection, issuer, proven.way_on, visitor=visitor, now=actor.at)
    return _Started(location or proven.way_on)
