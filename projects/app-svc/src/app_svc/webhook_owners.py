"""What the owners of webhooks may read: decided at each delivery from what is stored, kept true by what we are told."""

from app_svc.event_visibility import VisibleTo
from lib_auth.events import UserDisabled, UserRolesChanged
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.subscription import subscribe
from lib_events.webhooks import Webhook, pause_all_of, set_owner_roles


def may_read(webhook: Webhook, event: Event) -> bool:
    """Whether the owner of `webhook` may read `event` now."""
    return VisibleTo.of_owner(webhook.owner, webhook.owner_roles)(event)


@subscribe(UserRolesChanged, UserDisabled, durable="webhook-owners")
def hear_owners(connection: Connection, event: Event) -> None:
    """Take from an owner's webhooks what was taken from the owner."""
    if event.type == UserRolesChanged.name:
        told = event.payload(UserRolesChanged)
        set_owner_roles(connection, told.user, told.roles)
    else:
        pause_all_of(connection, event.payload(UserDisabled).user, "its owner was disabled")
