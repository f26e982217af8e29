"""`/account/sessions`: where one is signed in, and the end of it."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.pages.devices import Device, devices_page
from auth_svc.people import sessions
from auth_svc.people.accounts import Account
from auth_svc.people.devices import describe
from auth_svc.people.sessions import Session
from auth_svc.service import service_of
from auth_svc.site.account import end_and_record
from auth_svc.site.browser import read_page_form, redirect, render
from auth_svc.site.person import Person, for_people
from auth_svc.site.step_up import missing_factor
from lib_events.clock import to_datetime
from lib_events.database import Connection

PATH = "/account/sessions"


@for_people
async def devices(request: Request, person: Person) -> Response:
    """Show where the person is signed in, this browser first."""
    service = service_of(request)
    alive = await service.database.read(sessions.alive_of_user, person.account.id, service.clock.micros())
    shown = sorted((_device(session, person.session) for session in alive), key=lambda device: not device.current)
    return render(request, devices_page(csrf=person.visitor.csrf, devices=shown), visitor=person.visitor)


@for_people
async def end_session(request: Request, person: Person) -> Response:
    """Sign another browser out."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    form = await read_page_form(request, person.visitor)
    await person.commit(request, partial(_end_own, session_id=form.get("session", "")))
    return redirect(PATH)


@for_people
async def end_other_sessions(request: Request, person: Person) -> Response:
    """Sign every other browser out."""
    if (first := await missing_factor(request, person.visitor, PATH)) is not None:
        return first
    await read_page_form(request, person.visitor)
    await person.commit(request, partial(_end_others, kept=person.session.id))
    return redirect(PATH)


def _end_own(connection: Connection, account: Account, actor: Actor, *, session_id: str) -> None:
    session = sessions.find(connection, session_id)
    if session is not None and session.user_id == account.id:
        end_and_record(connection, session_id, actor)


def _end_others(connection: Connection, account: Account, actor: Actor, *, kept: str) -> None:
    sessions.end_all(connection, account.id, "signed out", actor.at, keep=kept)
    audit.record(connection, actor, "sessions.ended", about=account.id)


def _device(session: Session, current: Session) -> Device:
    return Device(
        id=session.id,
        name=describe(session.user_agent),
        address=session.address or "an unknown address",
        since=to_datetime(session.started_at),
        last_seen=to_datetime(session.last_seen_at or session.started_at),
        current=session.id == current.id,
    )
