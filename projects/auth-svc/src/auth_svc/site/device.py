"""`/device`: a person types the code their terminal shows, sees who asks for what, and decides."""

from functools import partial
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.audit import Actor
from auth_svc.loopback import is_loopback
from auth_svc.pages.consent import Asked, device_code_page, device_confirmation_page
from auth_svc.pages.notices import done_page
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import Session
from auth_svc.protocol import device_codes
from auth_svc.protocol.device_codes import WaitingDevice
from auth_svc.protocol.families import MICROS
from auth_svc.rate_limits import network_of
from auth_svc.service import address_of, service_of
from auth_svc.site.browser import PageRefused, Visitor, read_page_form, redirect, render, visitor_of
from auth_svc.site.person import in_session
from auth_svc.site.step_up import before_connecting
from lib_events.clock import to_datetime
from lib_events.database import Connection

UNKNOWN = "No device is waiting with that code. Check it, or start again on the device."


async def device_form(request: Request) -> Response:
    """Ask for the code, filled in when the link carried it."""
    visitor = await visitor_of(request)
    if visitor.account is None:
        return _to_sign_in(request)
    if (first := await before_connecting(request, visitor, _here(request))) is not None:
        return first
    user_code = request.query_params.get("user_code", "")[:20]
    return render(request, device_code_page(csrf=visitor.csrf, user_code=user_code), visitor=visitor)


async def device(request: Request) -> Response:
    """Show what the code stands for, then take the decision; never both at once (RFC 8628 section 5.4)."""
    visitor = await visitor_of(request)
    if visitor.account is None or visitor.session is None:
        return _to_sign_in(request)
    if (first := await before_connecting(request, visitor, "/device")) is not None:
        return first
    form = await read_page_form(request, visitor)
    # RFC 8628 section 5.1: every code that is tried counts, whatever is to be done with it.
    tries = service_of(request).limits.user_codes
    tries.begin(visitor.account.id)
    user_code = device_codes.normalise(form.get("user_code", ""))
    with tries.unless_away(visitor.account.id):
        match form.get("decision"):
            case "allow":
                return await _approve(request, visitor.account, visitor.session, user_code)
            case "deny":
                return await _deny(request, visitor.account, user_code)
            case _:
                return await _confirm(request, visitor, visitor.account, user_code)


async def _confirm(request: Request, visitor: Visitor, account: Account, user_code: str) -> Response:
    service = service_of(request)
    now = service.clock.micros()
    waiting = await service.database.read(device_codes.find_waiting, user_code, now)
    if waiting is None:
        page = device_code_page(csrf=visitor.csrf, user_code=user_code, error=UNKNOWN)
        return render(request, page, visitor=visitor, status=404)
    client, known = waiting.client, service.issuer.resources
    page = device_confirmation_page(
        csrf=visitor.csrf,
        user_code=user_code,
        client=client.name,
        username=account.username,
        asked=_asked(request, waiting, now),
        scopes=waiting.scopes,
        descriptions=known.descriptions,
        services=known.unspoken(waiting.resources, waiting.scopes),
        origin=urlsplit(client.id).hostname if client.origin == "document" else None,
        is_registered=client.origin == "registered",
    )
    return render(request, page, visitor=visitor)


def _asked(request: Request, waiting: WaitingDevice, now: int) -> Asked:
    minutes, address = max(now - waiting.asked_at, 0) // (60 * MICROS), waiting.address
    if is_loopback(address) and not service_of(request).issuer.is_loopback:
        address = None  # a proxy's that EVS_TRUSTED_PROXIES does not name: everybody would seem to be near
    is_here = address is not None and network_of(address) == network_of(address_of(request))
    return Asked(to_datetime(waiting.asked_at), minutes, address, is_here=is_here)


async def _approve(request: Request, account: Account, session: Session, user_code: str) -> Response:
    service = service_of(request)
    actor = service.actor(request, account.id)
    allow = partial(_allow, user_code=user_code, session=session)
    if not await service.database.transact(in_session, session.id, account.id, allow, actor):
        raise PageRefused(409, "That code is no longer waiting", "Start again on the device.")
    return render(request, done_page("Connected", "You can close this window and go back to your device."))


def _allow(connection: Connection, account: Account, actor: Actor, *, user_code: str, session: Session) -> bool:
    return device_codes.approve(connection, user_code, account, session, actor)


async def _deny(request: Request, account: Account, user_code: str) -> Response:
    service = service_of(request)
    if not await service.database.transact(device_codes.deny, user_code, service.actor(request, account.id)):
        raise PageRefused(409, "That code is no longer waiting", "Nothing was allowed.")
    return render(request, done_page("Refused", "The device was turned away. Nothing was allowed."))


def _to_sign_in(request: Request) -> Response:
    return redirect(f"/login?next={quote(_here(request), safe='')}")


def _here(request: Request) -> str:
    return "/device" + (f"?{request.url.query}" if request.url.query else "")
