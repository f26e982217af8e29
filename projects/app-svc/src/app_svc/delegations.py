"""What runs and schedules may do for a person: the rows that say by which id the AuthService knows it.

The id is no secret: without our own secret nothing can be done with it. What the person allowed, until when, and
whether they took it back is for the AuthService to know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, delete, exists, insert, select, update

from app_svc.tables import delegations
from lib_auth.delegations import GivenDelegation
from lib_auth.events import DelegationWithdrawn
from lib_events.clock import SystemClock, to_micros
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.subscription import subscribe
from lib_workflows.tables import runs, schedule_runs, schedules

DEEPEST = 100  # children nest no deeper
AT_ONCE = 100

type Kind = Literal["run", "schedule"]


@dataclass(frozen=True, slots=True)
class Held:
    """A delegation, and who has it."""

    kind: Kind
    holder: str  # the id of a run, or the name of a schedule
    delegation: str
    expires_at: int  # micros
    withdrawn_at: int | None


COLUMNS = (
    delegations.c.kind,
    delegations.c.holder,
    delegations.c.delegation,
    delegations.c.expires_at,
    delegations.c.withdrawn_at,
)


def keep(connection: Connection, kind: Kind, holder: str, given: GivenDelegation, principal: str) -> str | None:
    """Let a run or a schedule have a delegation; returns the one it had before, which is to be ended."""
    mine = (delegations.c.kind == kind) & (delegations.c.holder == holder)
    before: str | None = connection.scalar(select(delegations.c.delegation).where(mine))
    connection.execute(delete(delegations).where(mine))
    connection.execute(
        insert(delegations).values(
            kind=kind,
            holder=holder,
            delegation=given.id,
            principal=principal,
            expires_at=to_micros(given.expires_at),
        )
    )
    return before


def find(connection: Connection, run_id: str) -> Held | None:
    """The delegation of a run: its own, that of the run it is a child of, or that of its schedule.

    A child acts by what its parent was given, and for the same person. Who else starts a schedule's run by hand is not
    the person the schedule acts for.
    """
    columns = (runs.c.parent, runs.c.principal)
    for _ in range(DEEPEST + 1):
        row = connection.execute(select(*columns).where(runs.c.id == run_id)).one_or_none()
        if row is None:
            return None
        if (own := _held(connection, "run", run_id, row.principal)) is not None:
            return own
        if row.parent is None:
            schedule = connection.scalar(select(schedule_runs.c.schedule).where(schedule_runs.c.run == run_id))
            return None if schedule is None else _held(connection, "schedule", schedule, row.principal)
        run_id = row.parent
    return None


def _held(connection: Connection, kind: Kind, holder: str, principal: str | None) -> Held | None:
    mine = (delegations.c.kind == kind) & (delegations.c.holder == holder) & delegations.c.ended_at.is_(None)
    row = connection.execute(select(*COLUMNS).where(mine, delegations.c.principal == principal)).one_or_none()
    return None if row is None else _read(row)


def _read(row: Row[Any]) -> Held:
    return Held(row.kind, row.holder, row.delegation, row.expires_at, row.withdrawn_at)


def of_schedules(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Until when the runs of these schedules act for somebody, of those that do."""
    alive = delegations.c.ended_at.is_(None) & delegations.c.withdrawn_at.is_(None)
    mine = (delegations.c.kind == "schedule") & delegations.c.holder.in_(names) & alive
    return {row.holder: row.expires_at for row in connection.execute(select(*COLUMNS).where(mine))}


def end_of_schedule(connection: Connection, name: str, now: int) -> None:
    """Let a schedule have no delegation any more."""
    mine = (delegations.c.kind == "schedule") & (delegations.c.holder == name) & delegations.c.ended_at.is_(None)
    connection.execute(update(delegations).where(mine).values(ended_at=now))


@subscribe(DelegationWithdrawn.name, durable="withdrawn-delegations")
def hear_withdrawals(connection: Connection, event: Event) -> None:
    """Remember that a delegation was taken back, to say so of what still has it; nothing else depends on it."""
    mine = delegations.c.delegation == event.payload(DelegationWithdrawn).delegation
    connection.execute(update(delegations).where(mine).values(withdrawn_at=SystemClock().micros()))


def unneeded(connection: Connection) -> Sequence[Held]:
    """What belongs to runs that have ended and to schedules that are gone, or has been marked before."""
    query = select(*COLUMNS).where(delegations.c.ended_at.is_not(None) | _is_over()).limit(AT_ONCE)
    return [_read(row) for row in connection.execute(query)]


def end(connection: Connection, found: Sequence[Held], now: int) -> Sequence[Held]:
    """Mark what is still unneeded, so that no retry finds it; returns what the AuthService is to hear of."""
    named = delegations.c.delegation.in_([held.delegation for held in found])
    unmarked = named & delegations.c.ended_at.is_(None)
    connection.execute(update(delegations).where(unmarked, _is_over()).values(ended_at=now))
    query = select(*COLUMNS).where(named, delegations.c.ended_at.is_not(None))
    return [_read(row) for row in connection.execute(query)]


def _is_over() -> ColumnElement[bool]:
    alive_run = exists().where(runs.c.id == delegations.c.holder, runs.c.ended_at.is_(None))
    alive_schedule = exists().where(schedules.c.name == delegations.c.holder)
    ended_run = (delegations.c.kind == "run") & ~alive_run
    return ended_run | ((delegations.c.kind == "schedule") & ~alive_schedule)


def forget(connection: Connection, held: Held) -> None:
    """Forget a delegation that has been ended."""
    connection.execute(delete(delegations).where(delegations.c.delegation == held.delegation))
