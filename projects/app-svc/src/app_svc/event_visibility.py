"""Which events a caller may read: those of their own runs, everybody's, and, admins only, those of accounts."""

from collections.abc import Callable, Sequence

from app_svc.authorization import Caller
from app_svc.permissions import ACCOUNT_EVENTS, READ_ACCOUNT_EVENTS
from lib_events.event import Event
from lib_events.event_log import type_matches
from lib_events.problem import Problem
from lib_workflows.queries import RunView


def visible_to(caller: Caller) -> Callable[[Event], bool]:
    """Return the test that an event passes if `caller` may read it."""
    reads_accounts = READ_ACCOUNT_EVENTS.held_by(caller.principal)

    def is_visible(event: Event) -> bool:
        if not reads_accounts and is_of_account(event.type):
            return False
        # Every event of a run carries the principal it runs for, and every published one who published it.
        return caller.sees_all or event.extensions.get("principal") == caller.subject

    return is_visible


def check_types(caller: Caller, types: Sequence[str]) -> None:
    """Raise the `Problem` 403 when `caller` asks for events of accounts and is no admin."""
    if READ_ACCOUNT_EVENTS.held_by(caller.principal):
        return
    for name in types:
        if is_of_account(name):
            raise Problem(
                403,
                "role-missing",
                "You may not do that",
                f"to read {name} this needs the role {READ_ACCOUNT_EVENTS.role}; leave the type out",
                role=READ_ACCOUNT_EVENTS.role,
            )


def is_of_account(name: str) -> bool:
    """Whether events of that type (or pattern) tell of people's accounts."""
    return any(type_matches(name, pattern) for pattern in ACCOUNT_EVENTS)


def of_run(run: RunView, caller: Caller) -> Callable[[Event], bool]:
    """Return the test that an event passes if it belongs to the run and `caller` may read it."""
    # A client chooses its correlation id: it may well be the one of somebody else's story.
    is_visible = visible_to(caller)

    def belongs(event: Event) -> bool:
        told = event.data.get("run") if isinstance(event.data, dict) else None
        if run.id in (event.subject, told):
            return is_visible(event)
        # What the workflow published about something else; other runs of the same story say whose they are.
        own_type = not event.type.startswith("evs.")
        of_story = event.extensions.get("correlationid") == run.correlation_id
        return own_type and told is None and of_story and is_visible(event)

    return belongs
