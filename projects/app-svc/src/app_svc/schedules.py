"""The REST of schedules: make, change, pause and delete what starts runs by itself; start its runs by hand."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app_svc.acting_schedules import ActingSchedules
from app_svc.authorization import Caller, CallerOf
from app_svc.page import CursorText, Limit, Page
from app_svc.run_start import check_input, find_workflow
from app_svc.runs import IdempotencyKey
from app_svc.schedule_bodies import (
    SCHEDULE_NAME,
    BackfillBody,
    BackfillDocument,
    ChangeBody,
    ListedSchedule,
    PauseBody,
    PreviewDocument,
    ScheduleBody,
    ScheduleDetail,
    ScheduleDocument,
    StartedDocument,
    TimingBody,
    describe,
    describe_in_list,
    describe_whole,
)
from app_svc.service import Service
from lib_events.problem import Problem, invalid_input
from lib_workflows import Registry
from lib_workflows.authoring.timing import Timing
from lib_workflows.errors import ScheduleDeclared, ScheduleExists, ScheduleInvalid, ScheduleNotFound, UnknownWorkflow
from lib_workflows.scheduling.schedule import Plan, Schedule

RUNS_IN_LIST = 5

# Where a field of the request is named otherwise than in the plan.
FIELDS = {
    "every": "every_seconds",
    "catch_up_window": "catch_up_window_seconds",
    "jitter": "jitter_seconds",
    "timing": "cron",
}

Name = Annotated[str, Path(pattern=SCHEDULE_NAME)]


def schedule_routes(service: Service, *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/schedules`."""
    router = APIRouter(tags=["schedules"], route_class=route_class)
    routes, one = ScheduleRoutes(service), "/v1/schedules/{name}"
    router.get("/v1/schedules")(routes.list)
    router.post("/v1/schedules", status_code=201)(routes.create)
    router.post("/v1/schedules:preview")(routes.preview)
    router.get(one)(routes.show)
    router.patch(one)(routes.change)
    router.delete(one, status_code=204)(routes.delete)
    router.post(one + "/pause")(routes.pause)
    router.post(one + "/resume")(routes.resume)
    router.post(one + "/trigger", status_code=202)(routes.trigger)
    router.post(one + "/backfill", status_code=202)(routes.backfill)
    return router.routes


class ScheduleRoutes:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self._schedules = service.engine.schedules
        self._registry = service.workflows
        self._acting = ActingSchedules(service.database, service.workflows, service.delegator)

    async def list(self, _caller: CallerOf, cursor: CursorText = None, limit: Limit = 50) -> Page[ListedSchedule]:
        """List the schedules, by name."""
        page = await self._schedules.list(cursor=cursor, limit=limit)
        names = [schedule.name for schedule in page.items]
        until, runs = await self._acting.until(names), await self._schedules.runs_of(names, limit=RUNS_IN_LIST)
        items = [describe_in_list(each, runs.get(each.name, ()), until.get(each.name)) for each in page.items]
        return Page(items=items, next_cursor=page.next_cursor)

    async def preview(self, body: TimingBody, _caller: CallerOf) -> PreviewDocument:
        """Say when a schedule with that timing would be due next; nothing is stored."""
        with _problems():
            timing = _timing(body)
            # An expression that is seldom due is looked for through years: not on the loop that drives runs.
            return PreviewDocument(next_times=[*await asyncio.to_thread(self._schedules.preview, timing)])

    async def create(
        self, body: ScheduleBody, caller: CallerOf, http_request: Request, response: Response
    ) -> ScheduleDocument:
        """Make a schedule; its runs start in the name of whoever makes it."""
        with _problems():
            plan = _plan(self._registry, body)
            async with self._given(body.name, plan.workflow, caller, http_request, acts=body.acts_for_me):
                by = caller.as_run_principal()
                made = await self._schedules.add(body.name, plan, paused=body.paused, note=body.note, principal=by)
        response.headers["location"] = f"/v1/schedules/{made.name}"
        return await self._describe(made)

    async def show(self, name: Name, _caller: CallerOf) -> ScheduleDetail:
        """Show a schedule with its next times and its last runs."""
        with _problems():
            schedule = await self._schedules.get(name)
        last_runs, until = await self._schedules.runs(name), (await self._acting.until([name])).get(name)
        return describe_whole(schedule, self._schedules.next_times(schedule), last_runs, until)

    async def change(self, name: Name, body: ChangeBody, caller: CallerOf, http_request: Request) -> ScheduleDocument:
        """Change what a schedule starts, and when; its runs start in the name of whoever changes it."""
        with _problems():
            before = await self._schedules.get(name)
            workflow = body.workflow or before.plan.workflow
            async with self._given(name, workflow, caller, http_request, acts=bool(body.acts_for_me)):
                changed = await self._schedules.change(
                    name, lambda plan: _revise(self._registry, plan, body), principal=caller.as_run_principal()
                )
                if body.acts_for_me is False:
                    await self._acting.stop(name)
                else:
                    await self._acting.stop_unless_same(before, changed)
        return await self._describe(changed)

    @asynccontextmanager
    async def _given(
        self, name: str, workflow: str, caller: Caller, http_request: Request, *, acts: bool
    ) -> AsyncIterator[None]:
        """Ask for what the schedule's runs may do for the caller before the block stores it, and keep it afterwards."""
        if not acts:
            yield
            return
        find_workflow(self._registry, workflow, status=422)
        given = await self._acting.begin(name, workflow, caller, http_request)
        async with self._acting.ending_on_error(given):
            yield
        await self._acting.keep(name, given, caller)

    async def _describe(self, schedule: Schedule) -> ScheduleDocument:
        return describe(schedule, (await self._acting.until([schedule.name])).get(schedule.name))

    async def delete(self, name: Name, _caller: CallerOf) -> None:
        """Forget a schedule; its runs stay."""
        with _problems():
            await self._schedules.delete(name)

    async def pause(self, name: Name, _caller: CallerOf, body: PauseBody | None = None) -> ScheduleDocument:
        """Start nothing until the schedule is resumed."""
        with _problems():
            return await self._describe(await self._schedules.pause(name, note="" if body is None else body.note))

    async def resume(self, name: Name, _caller: CallerOf) -> ScheduleDocument:
        """Go on with the next time from now; for the times in between there is backfill."""
        with _problems():
            return await self._describe(await self._schedules.resume(name))

    async def trigger(self, name: Name, caller: CallerOf, *, idempotency_key: IdempotencyKey = None) -> StartedDocument:
        """Start a run now, in the caller's name, beside whatever is under way; once for each `Idempotency-Key`."""
        with _problems():
            by = caller.as_run_principal()
            run_id = await self._schedules.trigger(name, principal=by, idempotency_key=idempotency_key)
        return StartedDocument(runs=[run_id])

    async def backfill(self, name: Name, body: BackfillBody, caller: CallerOf) -> BackfillDocument:
        """Start the runs that a past range lacks, in the caller's name; asked again, those still missing."""
        with _problems():
            if body.dry_run:
                times = await self._schedules.lacking(name, body.since, body.until)
                return BackfillDocument(runs=[], times=[*times])
            by = caller.as_run_principal()
            started = await self._schedules.backfill(name, body.since, body.until, principal=by)
        return BackfillDocument(runs=[*started])


def _plan(registry: Registry, body: ScheduleBody) -> Plan:
    workflow = find_workflow(registry, body.workflow, status=422)
    return Plan(
        workflow=workflow.name,
        timing=_timing(body),
        input=check_input(workflow, body.input),
        queue=body.queue,
        tags=body.tags,
        overlap=body.overlap,
        catch_up=body.catch_up,
        catch_up_window=timedelta(seconds=body.catch_up_window_seconds),
        jitter=timedelta(seconds=body.jitter_seconds),
    )


def _timing(body: TimingBody) -> Timing:
    timing = body.timing()
    if timing is None:
        raise ScheduleInvalid("cron", "must be given, or every_seconds, or times")
    return timing


def _revise(registry: Registry, plan: Plan, body: ChangeBody) -> Plan:
    """The plan with what the body says; another workflow takes another input."""
    given = body.model_fields_set
    changes: dict[str, Any] = {name: getattr(body, name) for name in ("overlap", "catch_up", "tags") if name in given}
    changes = {name: value for name, value in changes.items() if value is not None}
    if (timing := body.timing()) is not None:
        changes["timing"] = timing
    if body.catch_up_window_seconds is not None:
        changes["catch_up_window"] = timedelta(seconds=body.catch_up_window_seconds)
    if body.jitter_seconds is not None:
        changes["jitter"] = timedelta(seconds=body.jitter_seconds)
    if "queue" in given:
        changes["queue"] = body.queue
    if "input" in given or body.workflow is not None:
        workflow = find_workflow(registry, body.workflow or plan.workflow, status=422)
        changes |= {"workflow": workflow.name, "input": check_input(workflow, body.input)}
    return replace(plan, **changes)


@contextmanager
def _problems() -> Iterator[None]:
    """What is wrong with a schedule, as HTTP says it."""
    try:
        yield
    except ScheduleInvalid as error:
        field = FIELDS.get(error.field, error.field)
        raise invalid_input([{"loc": ("body", field), "msg": error.problem}]) from error
    except ScheduleNotFound as error:
        raise Problem(404, "schedule-not-found", "There is no such schedule", str(error)) from error
    except ScheduleExists as error:
        raise Problem(409, "schedule-exists", "There is a schedule of that name", str(error)) from error
    except ScheduleDeclared as error:
        raise Problem(409, "schedule-declared", "The schedule is declared in code", str(error)) from error
    except UnknownWorkflow as error:
        raise Problem(409, "unknown-workflow", "There is no such workflow", str(error)) from error
