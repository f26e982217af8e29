"""`/verify-email`: a link proves an address; programs that scan mails follow links, only people press buttons."""

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.pages.mailed import verification_page
from auth_svc.pages.notices import done_page
from auth_svc.people import verification
from auth_svc.people.mail_links import LinkSpent
from auth_svc.service import act_as, service_of
from auth_svc.site.browser import PageRefused, read_page_form, render, visitor_of


async def verification_form(request: Request) -> Response:
    """Ask for the one press that a program does not make."""
    service, visitor = service_of(request), await visitor_of(request)
    secret = request.query_params.get("link", "")
    try:
        link, account = await service.database.read(verification.account_behind, secret, service.clock.micros())
    except LinkSpent:
        raise _spent() from None
    page = verification_page(csrf=visitor.csrf, secret=secret, email=link.email, username=account.username)
    return render(request, page, visitor=visitor)


async def verify(request: Request) -> Response:
    """Take the address for the person's."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    try:
        account = await service.database.transact(verification.verify, form.get("link", ""), service.actor(request))
    except LinkSpent:
        raise _spent() from None
    act_as(account.id)
    text = f"{account.email} is your address from now on."
    return render(request, done_page("Thank you", text, way_on=("/account", "Go to your account")))


def _spent() -> PageRefused:
    return PageRefused(
        410,
        "That link no longer works",
        "It was used, replaced by a newer one, or is too old. Send yourself a new one from your account.",
    )
