"""`/device`: a person types the code their terminal shows, sees who asks for what, and decides."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import device_codes
from auth_svc.browser import PageRefused, Visitor, read_page_form, redirect, render, visitor_of
from auth_svc.pages.consent import device_code_page, device_confirmation_page
from auth_svc.pages.notices import done_page
from auth_svc.rate_limits import TooManyAttempts
from auth_svc.service import address_of, service_of

UNKNOWN = "No device is waiting with that code. Check it, or start again on the device."


async def device_form(request: Request) -> Response:
    """Ask for the code, filled in when the link carried it."""
    visitor = await visitor_of(request)
    if visitor.account is None:
        return _to_sign_in(request)
    user_code = request.query_params.get("user_code", "")[:20]
    return render(request, device_code_page(csrf=visitor.csrf, user_code=user_code), visitor=visitor)


async def device(request: Request) -> Response:
    """Show what the code stands for, then take the decision; never both at once (RFC 8628 section 5.4)."""
    visitor = await visitor_of(request)
    if visitor.account is None:
        return _to_sign_in(request)
    form = await read_page_form(request, visitor)
    user_code = device_codes.normalise(form.get("user_code", ""))
    match form.get("decision"):
        case "allow":
            return await _approve(request, visitor, user_code)
        case "deny":
            return await _deny(request, visitor, user_code)
        case _:
            return await _confirm(request, visitor, user_code)


async def _confirm(request: Request, visitor: Visitor, user_code: str) -> Response:
    service = service_of(request)
    assert visitor.account is not None  # noqa: S101 - checked by the endpoint
    try:
        service.user_code_limits.begin(f"{visitor.account.id} {address_of(request)}")
    except TooManyAttempts as error:
        raise PageRefused(
            429, "Too many codes", "Wait a few minutes and try again.", retry_after=error.retry_after
        ) from error
    waiting = await service.database.read(device_codes.find_waiting, user_code, service.clock.micros())
    if waiting is None:
        page = device_code_page(csrf=visitor.csrf, user_code=user_code, error=UNKNOWN)
        return render(request, page, visitor=visitor, status=404)
    page = device_confirmation_page(
        csrf=visitor.csrf,
        user_code=user_code,
        client=waiting.client.name,
        username=visitor.account.username,
        scopes=waiting.scopes,
    )
    return render(request, page, visitor=visitor)


async def _approve(request: Request, visitor: Visitor, user_code: str) -> Response:
    service = service_of(request)
    assert visitor.account is not None  # noqa: S101 - checked by the endpoint
    assert visitor.session is not None  # noqa: S101
    actor = service.actor(request, visitor.account.id)
    if not await service.database.transact(device_codes.approve, user_code, visitor.account, visitor.session, actor):
        raise PageRefused(409, "That code is no longer waiting", "Start again on the device.")
    return render(request, done_page("Connected", "You can close this window and go back to your device."))


async def _deny(request: Request, visitor: Visitor, user_code: str) -> Response:
    service = service_of(request)
    assert visitor.account is not None  # noqa: S101 - checked by the endpoint
    if not await service.database.transact(device_codes.deny, user_code, service.actor(request, visitor.account.id)):
        raise PageRefused(409, "That code is no longer waiting", "Nothing was allowed.")
    return render(request, done_page("Refused", "The device was turned away. Nothing was allowed."))


def _to_sign_in(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    return redirect(f"/login?next={quote(f'/device{query}', safe='')}")
