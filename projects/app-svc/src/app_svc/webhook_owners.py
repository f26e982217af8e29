"""What the owners of webhooks may read: decided at each delivery from what is stored, kept true by what we are told."""

from app_svc.event_visibility import VisibleTo
from app_svc.owners_gone import REASONS, owner_in
from lib_auth.events import ClientChanged, UserRolesChanged
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.subscription import subscribe
from lib_events.webhooks.webhook import Webhook, pause_all_of, set_owner_roles


def may_read(webhook: Webhook, event: Event) -> bool:
    """Whether the owner of `webhook` may read `event` now."""
    return VisibleTo.of_owner(webhook.owner, webhook.owner_roles)(event)


@subscribe(UserRolesChanged.name, ClientChanged.name, *REASONS, durable="webhook-owners")
def hear_owners(connection: Connection, event: Event) -> None:
    """Take from the webhooks of a person or service client what was taken from their owner."""
    if event.type == UserRolesChanged.name:
        told = event.payload(UserRolesChanged)
        set_owner_roles(connection, told.user, told.roles)
    elif event.type == ClientChanged.name:
        changed = event.payload(ClientChanged)
        if changed.roles is not None:  # an older service does not say
            set_owner_roles(connection, changed.client, changed.roles)
    else:
        pause_all_of(connection, owner_in(event), REASONS[event.type])
