"""A schedule starts runs in somebody's name: who may not do that any more has no schedule that does."""

from collections.abc import Sequence

from app_svc.owners_gone import REASONS as GONE
from app_svc.owners_gone import owner_in
from lib_auth.events import ClientChanged, UserRolesChanged
from lib_auth.principal import OPERATOR, with_included
from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.subscription import subscribe
from lib_workflows.scheduling.commands import pause_all_of

REASONS = GONE | {
    UserRolesChanged.name: "its owner is no operator any more",
    ClientChanged.name: "its owner is no operator any more",
}


@subscribe(*REASONS, durable="schedule-owners")
def hear_schedule_owners(connection: Connection, event: Event) -> None:
    """Pause the schedules of a person or service client that is disabled, gone, or no operator any more."""
    if event.type == UserRolesChanged.name and _is_operator(event.payload(UserRolesChanged).roles):
        return
    if event.type == ClientChanged.name and _is_operator(event.payload(ClientChanged).roles):
        return
    pause_all_of(connection, owner_in(event), SystemClock().micros(), REASONS[event.type])


def _is_operator(roles: Sequence[str] | None) -> bool:
    """Whether these roles include it; an older service that did not say them took none away."""
    return roles is None or OPERATOR in with_included(roles)
