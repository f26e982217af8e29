"""`/login/second`: the second step of a sign-in, and of a session that an application wants to be stronger."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.endpoints.authorize import client_behind
from auth_svc.factors import authenticator_apps, held, recovery_codes
from auth_svc.factors.held import Factors
from auth_svc.pages.second_factor import second_factor_page
from auth_svc.people import accounts, sessions
from auth_svc.people.accounts import Account
from auth_svc.proving import guesses, sign_ins
from auth_svc.proving.assurance import ONE_TIME, PHISHING_RESISTANT, reaches, with_factor
from auth_svc.proving.sign_ins import SignIn
from auth_svc.service import act_as, address_of, service_of
from auth_svc.site.browser import (
    PageRefused,
    Visitor,
    read_page_form,
    redirect,
    remember_browser,
    render,
    sign_in_browser,
    step_cookie_of,
    take_step_cookie,
    visitor_of,
)
from auth_svc.site.ceremonies import options_for_second_step
from auth_svc.site.new_session import NewSession, make_session
from lib_events.database import Connection
from lib_events.sealed import SealingKey

WRONG = "That code is wrong, or it was used before. Wait for the next one."
STOPPED = (
    "Too many wrong codes were sent for your app, so its codes are not taken now. "
    "Use a passkey or a recovery code; if you have neither, ask an administrator."
)
LONGEST_CODE = 64

# Looks at what somebody sent; whether it is right. It may be used up by that.
type Check = Callable[[Connection, Account, Actor], bool]


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody sent, and the methods it proves where it is right."""

    check: Check
    methods: tuple[str, ...]


async def second_factor_form(request: Request) -> Response:
    """Ask for the second factor."""
    sign_in = await _under_way(request)
    return redirect("/login") if sign_in is None else await _show(request, await visitor_of(request), sign_in)


async def second_factor(request: Request) -> Response:
    """Check a code of the authenticator app, or a recovery code."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    if recovery_code := form.get("recovery_code"):
        check = partial(_check_recovery_code, recovery_code[:LONGEST_CODE])
    else:
        check = partial(_check_app, service.sealing_key, form.get("code", "")[:LONGEST_CODE])
    return await prove(request, visitor, Proof(check, (ONE_TIME,)))


async def prove(request: Request, visitor: Visitor, proof: Proof, *, wrong: str = WRONG) -> Response:
    """Take the second step: a session, or one more attempt; raises `PageRefused` when there is none left."""
    service, sign_in = service_of(request), await _under_way(request)
    if sign_in is None:
        raise _over()
    account_key, address = sign_in.user_id, address_of(request)
    # Whoever comes here knows the password: strangers count nothing against anybody.
    service.limits.second_factors.begin(account_key, address)
    act_as(sign_in.user_id)
    new = NewSession.of(request, visitor)
    actor = service.actor(request, sign_in.user_id)
    with service.limits.second_factors.unless_away(account_key, address):
        outcome = await service.database.transact(_pass, step_cookie_of(request), proof, new, actor)
    match outcome:
        case "over":
            raise _over()
        case "wrong":
            return await _show(request, visitor, sign_in, error=wrong, status=401)
    service.limits.second_factors.succeeded(account_key, address)
    response = redirect(sign_in.way_on)
    sign_in_browser(response, service.issuer, new.cookie)
    remember_browser(request, response, sign_in.user_id)
    take_step_cookie(response, service.issuer)
    return response


def _pass(
    connection: Connection, cookie: str, proof: Proof, new: NewSession, actor: Actor
) -> Literal["passed", "wrong", "over"]:
    """Count the attempt, look at what was sent, and make the session: all of it or nothing, and once."""
    sign_in = sign_ins.find(connection, cookie, actor.at)
    account = accounts.lock(connection, sign_in.user_id) if sign_in else None
    if sign_in is None or account is None or not account.enabled or not sign_ins.count_attempt(connection, sign_in):
        return "over"
    methods = with_factor(sign_in.methods, proof.methods)
    # What would not be enough is not even looked at: a code would be used up for nothing.
    if not reaches(methods, sign_in.wanted) or not proof.check(connection, account, actor):
        audit.record(connection, actor, "session.second-factor-refused", about=account.id)
        return "wrong"
    sign_ins.end(connection, sign_in)
    if sign_in.session_id is None:
        make_session(connection, account, methods, new, actor)
        return "passed"
    strengthened = sessions.strengthen(connection, sign_in.session_id, new.cookie, methods, actor)
    return "passed" if strengthened else "over"


def _check_app(key: SealingKey, code: str, connection: Connection, account: Account, actor: Actor) -> bool:
    return authenticator_apps.check(connection, account, code, key, actor)


def _check_recovery_code(code: str, connection: Connection, account: Account, actor: Actor) -> bool:
    return recovery_codes.check(connection, account, code, actor)


async def _under_way(request: Request) -> SignIn | None:
    service, cookie = service_of(request), step_cookie_of(request)
    return await service.database.read(sign_ins.find, cookie, service.clock.micros())


async def _show(
    request: Request, visitor: Visitor, sign_in: SignIn, *, error: str | None = None, status: int = 200
) -> Response:
    service = service_of(request)
    has, stopped = await service.database.read(_can_prove, sign_in)
    client, targets = await client_behind(service, sign_in.way_on)
    options = await options_for_second_step(request, sign_in.user_id)
    page = second_factor_page(
        csrf=visitor.csrf,
        factors=has,
        passkey_options=options,
        client=client,
        strengthens=sign_in.session_id is not None,
        error=STOPPED if stopped else error,
    )
    return render(request, page, visitor=visitor, status=status, form_targets=targets, scripted=options is not None)


def _can_prove(connection: Connection, sign_in: SignIn) -> tuple[Factors, bool]:
    """What the person may take the step with, and whether guesses have stopped their app."""
    has = held.of_user(connection, sign_in.user_id)
    if sign_in.wanted == PHISHING_RESISTANT:
        return Factors(passkeys=has.passkeys), False
    stopped = has.app and guesses.are_too_many(connection, sign_in.user_id)
    return (replace(has, app=False), True) if stopped else (has, False)


def _over() -> PageRefused:
    text = "It took too long, or there were too many wrong codes. Nothing is lost: begin again."
    return PageRefused(401, "Sign in once more", text)
