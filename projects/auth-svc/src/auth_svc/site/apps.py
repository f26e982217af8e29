"""`/account/apps`: the programs that may act for one, and the end of it."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.pages.apps import apps_page
from auth_svc.people import connected_apps, delegations
from auth_svc.people.connected_apps import ConnectedApp
from auth_svc.service import service_of
from auth_svc.site.browser import read_page_form, redirect, render
from auth_svc.site.person import Person, for_people
from lib_events.database import Connection


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
    service, form = service_of(request), await read_page_form(request, person.visitor)
    actor = service.actor(request, person.account.id)
    await service.database.transact(connected_apps.withdraw, person.account.id, form.get("client", ""), actor)
    return redirect("/account/apps")
