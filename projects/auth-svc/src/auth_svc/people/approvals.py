"""Decisions made in the AppService about requests of ours: heard as events, believed only as far as our rows agree."""

from typing import Any

from pydantic import BaseModel, ValidationError

from auth_svc.audit import Actor, record
from auth_svc.people import access_requests
from auth_svc.people.access_requests import Decision
from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.event import Event, EventType
from lib_events.subscription import subscribe

APP_SERVICE = "app-svc"
APP_SOURCE = f"/{APP_SERVICE}"


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


@subscribe(ApprovalDecided, durable="access-decisions")
def hear_decision(connection: Connection, event: Event) -> None:
    """Act on a decision from the AppService that is about an access request."""
    if event.source != APP_SOURCE:
        return  # the importer reads the AppService's stream only; this is the second lock on that door
    decided = event.payload(ApprovalDecided)
    if decided.about is None or not {"request", "role", "nonce"} <= decided.about.keys():
        return  # an approval about something else
    actor = Actor(SystemClock().micros(), decided.by)
    try:
        about = AboutAccessRequest.model_validate(decided.about)
    except ValidationError:
        record(connection, actor, "access.forged", approval=decided.approval, why="it does not say what it is about")
        return
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
    access_requests.decide(connection, decision, actor)
