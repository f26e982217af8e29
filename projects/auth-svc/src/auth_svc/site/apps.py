"""`/account/apps`: the programs that may act for one, and the end of it."""

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.pages.apps import apps_page
from auth_svc.people import connected_apps
from auth_svc.service import service_of
from auth_svc.site.browser import read_page_form, redirect, render
from auth_svc.site.person import Person, for_people


@for_people
async def apps(request: Request, person: Person) -> Response:
    """Show which programs may act for the person."""
    service = service_of(request)
    found = await service.database.read(connected_apps.apps_of, person.account.id, service.clock.micros())
    return render(request, apps_page(csrf=person.visitor.csrf, apps=found), visitor=person.visitor)


@for_people
async def withdraw(request: Request, person: Person) -> Response:
    """Take back what a program was allowed, and end what it holds."""
    service, form = service_of(request), await read_page_form(request, person.visitor)
    actor = service.actor(request, person.account.id)
    await service.database.transact(connected_apps.withdraw, person.account.id, form.get("client", ""), actor)
    return redirect("/account/apps")
