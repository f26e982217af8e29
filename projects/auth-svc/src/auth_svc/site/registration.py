"""`/register`: people make themselves an account, where that is open to them."""

from collections.abc import Mapping
from contextlib import nullcontext

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.endpoints.authorize import client_behind
from auth_svc.pages.sign_in import registration_page
from auth_svc.people import invitations, registration
from auth_svc.people.accounts import AccountRejected, NewAccount
from auth_svc.people.invitations import Invitation, InvitationSpent
from auth_svc.people.passwords import SHORTEST, PasswordRejected
from auth_svc.people.registration import Registration
from auth_svc.rate_limits import network_of
from auth_svc.service import AuthService, address_of, service_of
from auth_svc.site.browser import PageRefused, Visitor, read_page_form, render, visitor_of, way_on
from auth_svc.site.new_session import start_session


async def registration_form(request: Request) -> Response:
    """Show the registration page where people may make themselves an account."""
    secret = request.query_params.get("invitation")
    invitation = await _check_open(service_of(request), secret)
    typed = {"invitation": secret or "", "email": (invitation.email or "") if invitation else ""}
    return await _show(request, await visitor_of(request), way_on(request.query_params.get("next")), typed)


async def register(request: Request) -> Response:
    """Make an account and sign it in."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    await _check_open(service, form.get("invitation"))
    target = way_on(form.get("next"))
    limited, network = service.limits.registrations, network_of(address_of(request))
    if "invitation" not in form:
        limited.begin(network)
    username, email = form.get("username", ""), form.get("email")
    try:
        password_hash = await service.passwords.hash(form.get("password", ""), context=(username, email or ""))
        new = NewAccount(username, password_hash, email, name=form.get("name"))
        wanted = Registration(new, form.get("invitation"))
        with nullcontext() if "invitation" in form else limited.unless_away(network):
            account = await service.database.transact(registration.register, wanted, service.actor(request))
    except (AccountRejected, PasswordRejected) as error:
        at = error.field if isinstance(error, AccountRejected) else "password"
        return await _show(request, visitor, target, form, errors={at: str(error)})
    except InvitationSpent:
        raise _spent() from None
    return await start_session(request, visitor, account, target)


async def _show(
    request: Request,
    visitor: Visitor,
    target: str,
    typed: Mapping[str, str],
    *,
    errors: Mapping[str, str] | None = None,
) -> Response:
    _, targets = await client_behind(service_of(request), target)
    page = registration_page(csrf=visitor.csrf, way_on=target, typed=typed, errors=errors or {}, shortest=SHORTEST)
    return render(request, page, visitor=visitor, status=422 if errors else 200, form_targets=targets)


async def _check_open(service: AuthService, secret: str | None) -> Invitation | None:
    """Let in whoever may register; raises `PageRefused`."""
    mode = service.settings.registration
    if mode == "off":
        raise PageRefused(404, "No such page", "Ask an administrator for an account.")
    if secret is None:
        if mode == "invited":
            raise PageRefused(403, "You need an invitation", "Ask an administrator for one; the link is in its mail.")
        return None
    try:
        return await service.database.read(invitations.find, secret, service.clock.micros())
    except InvitationSpent:
        raise _spent() from None


def _spent() -> PageRefused:
    return PageRefused(
        410,
        "That invitation no longer works",
        "It was used, withdrawn, or is too old. Ask whoever invited you for a new one.",
    )
