"""`/account/apps`: the programs that may act for one, and the end of it."""

from collections.abc import Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.audit import Actor
from auth_svc.pages.apps import apps_page
from auth_svc.people import connected_apps, delegations
from auth_svc.people.accounts import Account
from auth_svc.people.connected_apps import ConnectedApp
from auth_svc.service import service_of
from auth_svc.site.browser import read_page_form, redirect, render
from auth_svc.site.person import Person, for_people
from auth_svc.site.step_up import missing_factor
from lib_events.database import Connection

PATH = "/account/apps"


@for_people
async def apps(request: Request, person: Person) -> Response:
    """Show which programs may act for the person."""
    service = service_of(request)
    apps, acting = await service.database.read(_load, person.account.id, service.clock.micros())
    page = apps_page(
        csrf=person.visitor.csrf,
        apps=apps,
        delegations=acting,
        descriptions=service.issuer.resources.descriptions,
    )
    return render(request, page, visitor=person.visitor)


def _load(
    connection: Connection, user_id: str, now: int
) -> tuple[Sequence[ConnectedApp], Sequence[delegations.Delegation]]:
    apps = connected_apps.apps_of(connection, user_id, now)
    return apps, delegations.alive_of_user(connection, user_id, now)


@for_people
async def withdraw(request: Request, person: Person) -> Response:
    """Take back what a program was allowed, and end what it holds."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    form = await read_page_form(request, person.visitor)
    await person.commit(request, partial(_withdraw, client=form.get("client", "")))
    return redirect(PATH)


def _withdraw(connection: Connection, account: Account, actor: Actor, *, client: str) -> None:
    connected_apps.withdraw(connection, account.id, client, actor)
