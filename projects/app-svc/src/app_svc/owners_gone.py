"""What tells that an owner, a person or a service client, is disabled or gone, and the note that says so."""

from lib_auth.events import ClientDisabled, ClientRemoved, UserDeleted, UserDisabled
from lib_events.event import Event

REASONS = {
    UserDisabled.name: "its owner was disabled",
    ClientDisabled.name: "its owner was disabled",
    UserDeleted.name: "its owner was removed",
    ClientRemoved.name: "its owner was removed",
}


def owner_in(event: Event) -> str:
    """The person or client that an event of the AuthService is about: its subject."""
    assert event.subject is not None  # noqa: S101 - the AuthService's events have one
    return event.subject
