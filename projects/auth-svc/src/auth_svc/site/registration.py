"""`/register`: people make themselves an account, where that is open."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import accounts
from auth_svc.accounts import AccountRejected, NewAccount
from auth_svc.endpoints.authorize import client_behind
from auth_svc.pages.sign_in import registration_page
from auth_svc.passwords import SHORTEST, PasswordRejected
from auth_svc.service import AuthService, address_of, service_of
from auth_svc.site.browser import PageRefused, Visitor, read_page_form, render, visitor_of, way_on
from auth_svc.site.new_session import start_session


async def registration_form(request: Request) -> Response:
    """Show the registration page where people may make themselves an account."""
    _check_open(service_of(request))
    return await _show(request, await visitor_of(request), way_on(request.query_params.get("next")))


async def register(request: Request) -> Response:
    """Make an account and sign it in."""
    service, visitor = service_of(request), await visitor_of(request)
    _check_open(service)
    form = await read_page_form(request, visitor)
    target = way_on(form.get("next"))
    try:
        service.sign_in_limits.begin("registration", address_of(request))
        password_hash = await service.passwords.hash(form.get("password", ""))
        new = NewAccount(form.get("username", ""), password_hash, form.get("email"))
        account = await service.database.transact(accounts.register, new, service.actor(request))
    except (AccountRejected, PasswordRejected) as error:
        at = error.field if isinstance(error, AccountRejected) else "password"
        return await _show(request, visitor, target, form=form, errors={at: str(error)})
    return await start_session(request, visitor, account, target)


async def _show(
    request: Request,
    visitor: Visitor,
    target: str,
    *,
    form: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Response:
    _, targets = await client_behind(service_of(request), target)
    typed = form or {}
    page = registration_page(
        csrf=visitor.csrf,
        way_on=target,
        username=typed.get("username", ""),
        email=typed.get("email", ""),
        field_errors=errors,
        shortest=SHORTEST,
    )
    return render(request, page, visitor=visitor, status=422 if errors else 200, form_targets=targets)


def _check_open(service: AuthService) -> None:
    if not service.settings.registration:
        raise PageRefused(404, "No such page", "Ask an administrator for an account.")
