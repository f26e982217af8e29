"""`/recover`: whoever reads an account's mails may replace its password; everybody gets the same answer."""

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.pages.mailed import new_password_page, recovery_page
from auth_svc.pages.notices import done_page
from auth_svc.people import accounts, mail_links, recovery
from auth_svc.people.accounts import Account
from auth_svc.people.mail_links import LinkSpent
from auth_svc.people.passwords import SHORTEST, PasswordRejected
from auth_svc.rate_limits import network_of
from auth_svc.service import AuthService, address_of, service_of
from auth_svc.site.browser import PageRefused, Visitor, read_page_form, remember_browser, render, visitor_of
from lib_events.database import Connection

SENT = (
    "If there is an account of that name or with that confirmed address, a mail with a link is on its way to it. "
    "The link works for one hour. No mail? Look among the unwanted ones, or ask an administrator."
)


async def recovery_form(request: Request) -> Response:
    """Ask whose password is lost."""
    visitor = await visitor_of(request)
    return render(request, recovery_page(csrf=visitor.csrf), visitor=visitor)


async def ask(request: Request) -> Response:
    """Write down that somebody asks; what becomes of it nobody sees here."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    network = network_of(address_of(request))
    service.limits.recoveries.begin(network)
    if form.get("wanted", "").strip():
        # The desk is not woken: what it does for some and not for others must not be felt by who asks.
        with service.limits.recoveries.unless_away(network):
            await service.database.transact(recovery.ask, form["wanted"].strip(), service.actor(request))
    return render(request, done_page("Look at your mails", SENT, way_on=("/login", "Back to the sign-in")))


async def new_password_form(request: Request) -> Response:
    """Ask for the new password."""
    service, visitor = service_of(request), await visitor_of(request)
    secret = request.query_params.get("link", "")
    return _show(request, visitor, secret, await _account_behind(service, secret))


async def set_new_password(request: Request) -> Response:
    """Set the password; second factors stay as they are, so nobody is signed in by this."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    secret = form.get("link", "")
    account = await _account_behind(service, secret)
    try:
        kept = await service.passwords.hash(form.get("new_password", ""), context=account.names)
        await service.database.transact(recovery.recover, secret, kept, service.actor(request))
    except PasswordRejected as error:
        return _show(request, visitor, secret, account, error=str(error))
    except LinkSpent:
        raise _spent() from None
    text = "Every sign-in with the old one has ended."
    response = render(request, done_page("The password is changed", text, way_on=("/login", "Sign in")))
    remember_browser(request, response, account.id)  # or whoever goes on guessing would keep them out of it
    return response


async def _account_behind(service: AuthService, secret: str) -> Account:
    try:
        return await service.database.read(_find, secret, service.clock.micros())
    except LinkSpent:
        raise _spent() from None


def _find(connection: Connection, secret: str, now: int) -> Account:
    link = mail_links.find(connection, "recover", secret, now)
    account = accounts.find(connection, link.user_id)
    if account is None or not recovery.may_recover(account, link.email_key):
        raise LinkSpent
    return account


def _show(request: Request, visitor: Visitor, secret: str, account: Account, *, error: str | None = None) -> Response:
    page = new_password_page(
        csrf=visitor.csrf, secret=secret, username=account.username, shortest=SHORTEST, error=error
    )
    return render(request, page, visitor=visitor, status=422 if error else 200)


def _spent() -> PageRefused:
    return PageRefused(
        410, "That link no longer works", "It was used, replaced by a newer one, or is too old. Ask for a new one."
    )
