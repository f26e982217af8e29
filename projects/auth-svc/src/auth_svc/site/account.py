"""`/account`: who one is, the address one is reached at, a new password, signing out."""

from collections.abc import Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.pages.account import profile_page
from auth_svc.pages.notices import signed_out_page
from auth_svc.people import accounts, addresses, mail_links, profile, sessions
from auth_svc.people.accounts import Account, AccountRejected
from auth_svc.people.passwords import SHORTEST, PasswordRejected
from auth_svc.service import service_of
from auth_svc.site.browser import read_page_form, remember_browser, render, sign_out_browser
from auth_svc.site.person import Person, doubt, for_people, missing_sign_in
from auth_svc.site.step_up import missing_factor
from lib_events.database import Connection

PATH = "/account"
TOO_MANY_MAILS = "Enough mails were sent for now; look for them, or try again in an hour."


@for_people
async def account(request: Request, person: Person) -> Response:
    """Show who one is."""
    return await _show(request, person)


@for_people
async def change_name(request: Request, person: Person) -> Response:
    """Set how others call the person."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    form = await read_page_form(request, person.visitor)
    try:
        await person.commit(request, partial(_set_name, name=form.get("name")))
    except AccountRejected as error:
        return await _show(request, person, errors={"name": error.detail})
    return await _show(request, person, done="Your name is saved.")


@for_people
async def change_email(request: Request, person: Person) -> Response:
    """Ask the new address whether it is the person's; until it says so, the old one stays."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    if (first := missing_sign_in(request, person, PATH)) is not None:
        return first
    form = await read_page_form(request, person.visitor)
    email = form.get("email", "").strip()
    try:
        accounts.check_email(email)
    except AccountRejected as error:
        return await _show(request, person, errors={"email": error.detail})
    if (wrong := await doubt(request, person, form.get("password", ""))) is not None:
        return await _show(request, person, errors={"password": wrong})
    if not await person.commit(request, partial(_ask_to_verify, email=email)):
        return await _show(request, person, errors={"email": TOO_MANY_MAILS})
    return await _show(request, person, done=f"A mail to {email} is on its way. Follow the link in it within 24 hours.")


@for_people
async def change_password(request: Request, person: Person) -> Response:
    """Check the current password and set a new one; every other sign-in ends."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    if (first := missing_sign_in(request, person, PATH)) is not None:
        return first
    service, form = service_of(request), await read_page_form(request, person.visitor)
    if (wrong := await doubt(request, person, form.get("current_password", ""))) is not None:
        at = "current_password" if person.account.password_hash else "password"
        return await _show(request, person, errors={at: wrong})
    try:
        fresh = await service.passwords.hash(form.get("new_password", ""), context=person.account.names)
    except PasswordRejected as error:
        return await _show(request, person, errors={"new_password": str(error)})
    await person.commit(request, partial(_set_password, fresh=fresh, keep_session=person.session.id))
    response = await _show(request, person, done="The password is changed.")
    remember_browser(request, response, person.account.id)
    return response


@for_people
async def sign_out(request: Request, person: Person) -> Response:
    """Sign this browser out."""
    service = service_of(request)
    await read_page_form(request, person.visitor)
    actor = service.actor(request, person.account.id)
    await service.database.transact(end_and_record, person.session.id, actor)
    response = render(request, signed_out_page())
    sign_out_browser(response, service.issuer)
    return response


def end_and_record(connection: Connection, session_id: str, actor: Actor) -> None:
    """End a session because its owner wants it."""
    if sessions.end(connection, session_id, "signed out", actor.at):
        audit.record(connection, actor, "session.ended", about=session_id)


def _set_name(connection: Connection, account: Account, actor: Actor, *, name: str | None) -> None:
    profile.set_name(connection, account.id, name, actor)


def _ask_to_verify(connection: Connection, account: Account, actor: Actor, *, email: str) -> bool:
    if not addresses.ask(connection, account.id, account.username, email, actor.at):
        return False
    audit.record(connection, actor, "user.email-asked", about=account.id)
    return True


def _set_password(connection: Connection, account: Account, actor: Actor, *, fresh: str, keep_session: str) -> None:
    accounts.set_password(connection, account.id, fresh, actor, keep_session)


async def _show(
    request: Request, person: Person, *, done: str | None = None, errors: Mapping[str, str] | None = None
) -> Response:
    service = service_of(request)
    fresh, waiting = await service.database.read(_load, person.account.id, service.clock.micros())
    page = profile_page(
        csrf=person.visitor.csrf,
        account=fresh or person.account,
        waiting=waiting,
        shortest=SHORTEST,
        done=done,
        errors=errors or {},
    )
    return render(request, page, visitor=person.visitor, status=422 if errors else 200)


def _load(connection: Connection, user_id: str, now: int) -> tuple[Account | None, str | None]:
    return accounts.find(connection, user_id), mail_links.waiting_address(connection, user_id, now)
