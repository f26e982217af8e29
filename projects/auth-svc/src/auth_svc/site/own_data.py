"""`/account/data`: everything we keep of one, to take along or to be deleted."""

import asyncio
import json
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.audit import Actor
from auth_svc.pages.notices import done_page
from auth_svc.pages.own_data import own_data_page
from auth_svc.people import administrators
from auth_svc.people import own_data as data
from auth_svc.people.accounts import Account
from auth_svc.people.administrators import LastAdministrator
from auth_svc.service import service_of
from auth_svc.site.browser import read_page_form, render, sign_out_browser
from auth_svc.site.person import Person, doubt, for_people, in_session, missing_sign_in
from auth_svc.site.step_up import missing_factor
from lib_events.database import Connection

PATH = "/account/data"
LAST = "You are the only administrator. Make somebody else one first; then this account can be deleted."
DOWNLOAD = {
    "content-disposition": 'attachment; filename="my-account.json"',
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


@for_people
async def own_data(request: Request, person: Person) -> Response:
    """Offer both."""
    return _show(request, person)


@for_people
async def export(request: Request, person: Person) -> Response:
    """Answer with all of it as a file."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    service = service_of(request)
    actor = service.actor(request, person.account.id)
    await service.database.transact(data.record_export, actor)
    content = await service.database.read(data.export, person.account, actor.at)
    # Thousands of lines take a while, in which others are served.
    text = await asyncio.to_thread(partial(json.dumps, content, indent=2, ensure_ascii=False))
    return Response(text + "\n", media_type="application/json", headers=DOWNLOAD)


@for_people
async def delete(request: Request, person: Person) -> Response:
    """Delete the account, once it is certain who asks for it."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    if (first := missing_sign_in(request, person, PATH)) is not None:
        return first
    form = await read_page_form(request, person.visitor)
    if (wrong := await doubt(request, person, form.get("password", ""))) is not None:
        return _show(request, person, password_error=wrong)
    try:
        service = service_of(request)
        actor = service.actor(request, person.account.id)
        await service.database.transact(_delete, person.session.id, person.account.id, actor)
    except LastAdministrator:
        return _show(request, person, error=LAST)
    response = render(request, done_page("Your account is deleted", "Nothing personal of yours is left here."))
    sign_out_browser(response, service_of(request).issuer)
    return response


def _delete(connection: Connection, session_id: str, user_id: str, actor: Actor) -> None:
    """Delete the account in its session; who leaves locks all administrators first, in the same order as the others."""
    administrators.lock(connection)
    in_session(connection, session_id, user_id, _delete_account, actor)


def _delete_account(connection: Connection, account: Account, actor: Actor) -> None:
    data.delete_account(connection, account.id, actor)


def _show(request: Request, person: Person, *, error: str | None = None, password_error: str | None = None) -> Response:
    page = own_data_page(
        csrf=person.visitor.csrf,
        username=person.account.username,
        has_password=person.account.password_hash is not None,
        error=error,
        password_error=password_error,
    )
    return render(request, page, visitor=person.visitor, status=422 if error or password_error else 200)
