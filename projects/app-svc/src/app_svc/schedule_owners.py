"""A schedule starts runs in somebody's name: who may not do that any more has no schedule that does."""

from lib_auth.events import UserDisabled, UserRolesChanged
from lib_auth.principal import OPERATOR, with_included
from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.subscription import subscribe
from lib_workflows.schedule_commands import pause_all_of


@subscribe(UserRolesChanged, UserDisabled, durable="schedule-owners")
def hear_schedule_owners(connection: Connection, event: Event) -> None:
    """Pause the schedules of a person who is disabled, or no operator any more."""
    if event.type == UserDisabled.name:
        user, why = event.payload(UserDisabled).user, "its owner was disabled"
    else:
        told = event.payload(UserRolesChanged)
        if OPERATOR in with_included(told.roles):
            return
        user, why = told.user, "its owner is no operator any more"
    pause_all_of(connection, user, SystemClock().micros(), why)
