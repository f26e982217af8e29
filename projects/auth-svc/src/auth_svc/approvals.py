"""Decisions made in the AppService about requests of ours: heard as events, believed only as far as our rows agree."""

from typing import Any

from pydantic import BaseModel

from auth_svc import access_requests
from auth_svc.access_requests import Decision
from auth_svc.audit import Actor
from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.event import Event, EventRejected, EventType

APP_SOURCE = "/app-svc"


class ApprovalDecidedData(BaseModel):
    """What we read of the AppService's event."""

    approval: str
    approved: bool
    by: str
    comment: str | None = None
    about: dict[str, Any] | None = None


class AboutAccessRequest(BaseModel):
    """What an approval of an access request is about."""

    request: str
    user: str
    role: str
    nonce: str


ApprovalDecided = EventType("evs.approval.decided", ApprovalDecidedData)
_About = EventType("evs.approval.decided", AboutAccessRequest)


def hear_decision(connection: Connection, event: Event) -> None:
    """Subscription handler: act on a decision from the AppService that is about an access request."""
    if event.source != APP_SOURCE:
        return  # the importer reads the AppService's stream only; this is the second lock on that door
    decided = event.payload(ApprovalDecided)
    if decided.about is None or not {"request", "role", "nonce"} <= decided.about.keys():
        return  # an approval about something else
    try:
        about = _About.adapter.validate_python(decided.about)
    except ValueError as error:
        raise EventRejected("invalid_data", f"about must name request, user, role and nonce: {error}") from error
    decision = Decision(
        approval=decided.approval,
        approved=decided.approved,
        by=decided.by,
        request=about.request,
        user=about.user,
        role=about.role,
        nonce=about.nonce,
        comment=decided.comment,
    )
    access_requests.decide(connection, decision, Actor(SystemClock().micros(), decided.by))
