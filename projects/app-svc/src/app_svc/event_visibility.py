"""Which events a caller may read: those of their own runs, everybody's, and, admins only, those of accounts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app_svc.authorization import Caller
from app_svc.permissions import ACCOUNT_EVENTS, READ_ACCOUNT_EVENTS, READ_ALL_EVENTS
from lib_auth.principal import with_included
from lib_events.event import Event
from lib_events.event_filter import type_matches
from lib_events.problem import Problem
from lib_workflows.reading.queries import RunView


@dataclass(frozen=True, slots=True)
class VisibleTo:
    """The test that an event passes if a caller may read it; callers who may read the same have equal ones."""

    reads_accounts: bool
    principal: str | None  # None: everybody's

    @classmethod
    def of(cls, caller: Caller) -> "VisibleTo":
        """Return the test for `caller`."""
        return cls(READ_ACCOUNT_EVENTS.held_by(caller.principal), None if caller.sees_all else caller.subject)

    @classmethod
    def of_owner(cls, subject: str, roles: Iterable[str]) -> "VisibleTo":
        """Return the test for somebody who asked once, with `events:read`, and is not there now."""
        held = with_included(roles)
        return cls(READ_ACCOUNT_EVENTS.role in held, None if READ_ALL_EVENTS.role in held else subject)

    def __call__(self, event: Event) -> bool:
        """Whether `event` may be read."""
        if not self.reads_accounts and is_of_account(event.type):
            return False
        # Every event of a run carries the principal it runs for, and every published one who published it.
        return self.principal is None or event.extensions.get("principal") == self.principal


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


@dataclass(frozen=True, slots=True)
class OfRun:
    """The test that an event passes if it belongs to a run and a caller may read it."""

    run_id: str
    correlation_id: str
    is_visible: VisibleTo  # a client chooses its correlation id: it may well be the one of somebody else's story

    @classmethod
    def of(cls, run: RunView, caller: Caller) -> "OfRun":
        """Return the test for the events of `run` that `caller` may read."""
        return cls(run.id, run.correlation_id, VisibleTo.of(caller))

    def __call__(self, event: Event) -> bool:
        """Whether `event` belongs to the run and may be read."""
        return self._belongs(event) and self.is_visible(event)

    def _belongs(self, event: Event) -> bool:
        told = event.data.get("run") if isinstance(event.data, dict) else None
        if self.run_id in (event.subject, told):
            return True
        # What the workflow published about something else; other runs of the same story say whose they are.
        own_type = not event.type.startswith("evs.")
        return own_type and told is None and event.extensions.get("correlationid") == self.correlation_id
