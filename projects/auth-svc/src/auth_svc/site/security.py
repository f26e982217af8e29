"""`/account/security`: the ways to prove who one is; changing them takes a sign-in of a moment ago."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import opaque
from auth_svc.audit import Actor
from auth_svc.factors import authenticator_apps, held, passkeys, recovery_codes
from auth_svc.pages.security import app_page, recovery_codes_page, security_page
from auth_svc.people import sessions
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import Session
from auth_svc.proving.assurance import ONE_TIME, with_factor
from auth_svc.service import AuthService, service_of
from auth_svc.site.browser import (
    Visitor,
    confirm_url,
    read_page_form,
    redirect,
    render,
    sign_in_browser,
    visitor_of,
    way_on,
)
from auth_svc.site.ceremonies import options_to_add
from auth_svc.site.person import in_session, is_fresh
from auth_svc.site.step_up import missing_factor
from auth_svc.upstreams import providers
from lib_events.database import Connection
from lib_events.sealed import SealingKey

PATH = "/account/security"
ONLY_WAY_IN = "That is the only way in that you have. Set a password, or add another, first."
SIGN_IN = "/login?next=%2Faccount%2Fsecurity"
WRONG = "That code is wrong. Enter the one that the app shows now; the clocks of both must be right."


# Adds a factor; returns the recovery codes to show, or None for what is none.
type Add = Callable[[Connection, Account, Actor], list[str] | None]


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody, who signed in a moment ago, wants to change."""

    request: Request
    visitor: Visitor
    account: Account
    actor: Actor
    form: Mapping[str, str]

    @property
    def service(self) -> AuthService:
        """The service that is asked."""
        return service_of(self.request)

    @property
    def target(self) -> str | None:
        """Where the person was going when they were asked for this change."""
        return _target(self.form.get("next"))

    @property
    def session(self) -> Session:
        """The session in which it is asked for."""
        assert self.visitor.session is not None  # noqa: S101 - a fresh one was found
        return self.visitor.session

    async def commit[R](self, act: Callable[[Connection, Account, Actor], R]) -> R:
        """Let `act` happen in a transaction, unless the sign-in that wants it has ended meanwhile."""
        return await self.service.database.transact(in_session, self.session.id, self.account.id, act, self.actor)

    async def add_factor(self, add: Add, *methods: str) -> tuple["Change", list[str] | None]:
        """Let `add` add a factor, which this session has shown by that; returns the change as its browser goes on."""
        before, cookie = self.session, opaque.new_secret()

        def add_and_strengthen(connection: Connection, account: Account, actor: Actor) -> list[str] | None:
            codes = add(connection, account, actor)
            if codes is not None:
                sessions.strengthen(connection, before.id, cookie, with_factor(before.methods, methods), actor)
            return codes

        codes = await self.commit(add_and_strengthen)
        return (self if codes is None else replace(self, visitor=replace(self.visitor, cookie=cookie))), codes


def change(act: Callable[[Change], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Let `act` happen for whoever proved a moment ago who they are; everybody else does that first.

    A session from before there was a second factor proves that, too: who has stolen the password may be in it.
    """

    async def answer(request: Request) -> Response:
        service, visitor = service_of(request), await visitor_of(request)
        if visitor.account is None or not is_fresh(visitor.session, service.clock.micros()):
            return to_sign_in()
        if (first := await missing_factor(request, visitor, PATH)) is not None:
            return first
        form = await read_page_form(request, visitor)
        actor = service.actor(request, visitor.account.id)
        return await act(Change(request, visitor, visitor.account, actor, form))

    return answer


async def security(request: Request) -> Response:
    """Show what protects the account."""
    visitor = await visitor_of(request)
    if visitor.account is None:
        return redirect(SIGN_IN)
    return await show(request, visitor, visitor.account, target=_target(request.query_params.get("next")))


@change
async def set_up_app(wanted: Change) -> Response:
    """Make the secret of an authenticator app."""
    key = wanted.service.sealing_key
    made = await wanted.commit(partial(authenticator_apps.set_up, session=wanted.session.id, key=key))
    on = f"?{urlencode({'next': wanted.target})}" if wanted.target else ""
    return redirect(f"{PATH}/app{on}" if made else PATH)


async def app_form(request: Request) -> Response:
    """Show the secret that waits to be confirmed."""
    service, visitor = service_of(request), await visitor_of(request)
    if visitor.account is None or not is_fresh(visitor.session, service.clock.micros()):
        return to_sign_in()
    target = _target(request.query_params.get("next"))
    return await _show_app(request, visitor, visitor.account, target=target)


@change
async def confirm_app(wanted: Change) -> Response:
    """Let the app count once it has shown a right code: no guess, its secret is on the page."""
    request, service, account = wanted.request, wanted.service, wanted.account
    code = wanted.form.get("code", "")[:20]
    confirm = partial(_confirm_app, session=wanted.session.id, code=code, key=service.sealing_key)
    wanted, codes = await wanted.add_factor(confirm, ONE_TIME)
    if codes is None:
        return await _show_app(request, wanted.visitor, account, target=wanted.target, error=WRONG)
    return await show_added(wanted, codes, done="The authenticator app is set up.")


@change
async def remove_app(wanted: Change) -> Response:
    """Take the authenticator app away."""
    await wanted.commit(authenticator_apps.remove)
    return redirect(PATH)


@change
async def renew_recovery_codes(wanted: Change) -> Response:
    """Make a new set and show it, once."""
    codes = await wanted.commit(_renew)
    if codes is None:
        return redirect(PATH)
    return render(wanted.request, recovery_codes_page(codes=codes), visitor=wanted.visitor)


def to_sign_in() -> Response:
    """Let the visitor prove once more who they are, and come back."""
    return redirect(confirm_url(PATH))


async def show(
    request: Request,
    visitor: Visitor,
    account: Account,
    *,
    target: str | None = None,
    done: str | None = None,
    error: str | None = None,
) -> Response:
    """Show what protects the account."""
    service = service_of(request)
    has = await service.database.read(held.of_user, account.id)
    own = await service.database.read(passkeys.of_user, account.id)
    options = await options_to_add(request, visitor, account)
    page = security_page(
        csrf=visitor.csrf,
        factors=has,
        passkeys=own,
        passkey_options=options,
        upstreams=await service.database.read(providers.every),
        linked=await service.database.read(providers.linked_to, account.id),
        way_on=target,
        done=done,
        error=error,
    )
    return render(request, page, visitor=visitor, status=422 if error else 200, scripted=options is not None)


async def show_added(wanted: Change, codes: list[str], *, done: str) -> Response:
    """Show the recovery codes that come with a first factor; there are none with a further one."""
    if not codes:
        response = await show(wanted.request, wanted.visitor, wanted.account, target=wanted.target, done=done)
    else:
        page = recovery_codes_page(codes=codes, done=done, way_on=wanted.target)
        response = render(wanted.request, page, visitor=wanted.visitor)
    sign_in_browser(response, wanted.service.issuer, wanted.visitor.cookie or "")
    return response


def first_codes(connection: Connection, account: Account, actor: Actor) -> list[str]:
    """Return recovery codes for somebody who has none: a factor alone can be lost."""
    if held.of_user(connection, account.id).recovery_codes:
        return []
    codes = recovery_codes.make()
    recovery_codes.replace(connection, account, codes, actor)
    return codes


def _target(wanted: str | None) -> str | None:
    return way_on(wanted) if wanted else None


async def _show_app(
    request: Request, visitor: Visitor, account: Account, *, target: str | None, error: str | None = None
) -> Response:
    service, session = service_of(request), visitor.session.id if visitor.session is not None else ""
    find = authenticator_apps.secret_to_confirm
    secret = await service.database.read(find, account.id, session, service.sealing_key)
    if secret is None:
        return redirect(PATH)
    uri = authenticator_apps.setup_uri(secret, account.username, service.issuer.url)
    page = app_page(csrf=visitor.csrf, uri=uri, secret=secret, way_on=target, error=error)
    return render(request, page, visitor=visitor, status=422 if error else 200)


def _confirm_app(
    connection: Connection, account: Account, actor: Actor, *, session: str, code: str, key: SealingKey
) -> list[str] | None:
    """Return the recovery codes to show, or None for a wrong code."""
    if not authenticator_apps.confirm(connection, account, actor, session=session, code=code, key=key):
        return None
    return first_codes(connection, account, actor)


def _renew(connection: Connection, account: Account, actor: Actor) -> list[str] | None:
    if not held.of_user(connection, account.id).any:
        return None  # there is nothing they could stand in for
    codes = recovery_codes.make()
    recovery_codes.replace(connection, account, codes, actor)
    held.write_added(connection, account, held.RECOVERY_CODES, actor, called="new recovery codes")
    return codes
