"""Schedules that act for whoever made them: their runs have no caller, so they go by what the schedule was given."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.requests import Request

from app_svc import delegations
from app_svc.authorization import Caller
from app_svc.delegator import Delegator
from lib_auth.delegations import GivenDelegation
from lib_events.clock import SystemClock
from lib_events.database import Connection, Database
from lib_events.problem import invalid_input
from lib_workflows import Registry
from lib_workflows.authoring.delegation import LONGEST
from lib_workflows.scheduling.schedule import Schedule


class ActingSchedules:
    """Lets schedules act for the person who asks for it, and stops it when they are somebody else's."""

    def __init__(self, database: Database, registry: Registry, delegator: Delegator) -> None:
        self._database = database
        self._registry = registry
        self._delegator = delegator

    async def begin(self, name: str, workflow: str, caller: Caller, http_request: Request) -> GivenDelegation:
        """Get what the schedule's runs may do for the caller; raises the `Problem` that says what is in the way."""
        found = self._registry.find(workflow)
        if not found.acts_for_starter:
            detail = f"must be left out: {workflow} declares nothing that it does for anybody"
            raise invalid_input([{"loc": ("body", "acts_for_me"), "msg": detail}])
        purpose = f"Schedule {name} of the workflow {workflow}"
        return await self._delegator.begin(found, caller, http_request, purpose=purpose, lasts=LONGEST)

    @asynccontextmanager
    async def ending_on_error(self, given: GivenDelegation) -> AsyncIterator[None]:
        """End what was given where the block, which stores the schedule, fails."""
        async with self._delegator.ending_on_error() as begun:
            begun.append(given.id)
            yield

    async def keep(self, name: str, given: GivenDelegation, caller: Caller) -> None:
        """Let a schedule that has been stored have what it was given."""
        async with self.ending_on_error(given):
            before = await self._database.transact(_keep, name, given, caller.subject)
        await self._delegator.end(before)

    async def stop_unless_same(self, before: Schedule, after: Schedule) -> None:
        """A schedule that was made another person's, or starts another workflow, acts for nobody."""
        owners = [None if each.principal is None else each.principal.subject for each in (before, after)]
        if owners[0] != owners[1] or before.plan.workflow != after.plan.workflow:
            await self.stop(after.name)

    async def stop(self, name: str) -> None:
        """Let a schedule act for nobody; the AuthService hears of it in a moment."""
        await self._database.transact(delegations.end_of_schedule, name, SystemClock().micros())

    async def until(self, names: Sequence[str]) -> dict[str, int]:
        """Until when these schedules act for somebody, in microseconds since the epoch; of those that do."""
        return await self._database.read(delegations.of_schedules, names) if names else {}


def _keep(connection: Connection, name: str, given: GivenDelegation, principal: str) -> str | None:
    return delegations.keep(connection, "schedule", name, given, principal)
