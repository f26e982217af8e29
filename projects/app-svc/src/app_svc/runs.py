"""The REST of runs: start, list, show, follow, and the commands on them."""

import hashlib
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import AwareDatetime
from starlette.routing import BaseRoute

from app_svc.acting_runs import ActingRuns
from app_svc.authorization import Caller, CallerOf
from app_svc.documents import ComparisonDocument, HistoryDocument, LogDocument, RunDocument
from app_svc.event_visibility import OfRun
from app_svc.page import STORABLE, CursorText, Limit, Page
from app_svc.run_bodies import MOST_TAGS, BatchBody, BulkAnswer, BulkBody, CancelBody, ForkBody, RunStatus, Tag
from app_svc.run_desk import RunDesk
from app_svc.run_start import RUN_ID, StartBody, check_input, check_run_id, find_workflow, make_request, read_wait
from app_svc.service import Service
from lib_events.event_log import Cursor
from lib_events.log.feed import Filter
from lib_events.problem import Problem
from lib_workflows.reading import queries
from lib_workflows.reading.queries import RunFilter
from lib_workflows.runs import commands, rewind
from lib_workflows.values.codec import encode_json, within_limit

RunId = Annotated[str, Path(pattern=RUN_ID)]
MessageName = Annotated[str, Path(min_length=1, max_length=128, pattern=STORABLE)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
Prefer = Annotated[str | None, Header(max_length=500)]


def run_routes(runs: "RunRoutes", *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/runs`."""
    router = APIRouter(tags=["runs"], route_class=route_class)
    stream: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
    router.get("/v1/runs")(runs.list)
    router.post("/v1/runs", status_code=202)(runs.start)
    router.post("/v1/runs:batch", status_code=202)(runs.start_batch)
    router.post("/v1/runs:cancel")(runs.cancel_matching)
    router.post("/v1/runs:retry")(runs.retry_matching)
    router.get("/v1/runs/{run_id}")(runs.show)
    router.get("/v1/runs/{run_id}/history")(runs.history)
    router.get("/v1/runs/{run_id}/export")(runs.export)
    router.get("/v1/runs/{run_id}/comparison")(runs.compare)
    router.get("/v1/runs/{run_id}/logs")(runs.logs)
    router.get("/v1/runs/{run_id}/events", response_class=Response, responses=stream)(runs.follow)
    router.get("/v1/runs/{run_id}/views/{name}")(runs.view)
    router.post("/v1/runs/{run_id}/cancel", status_code=202)(runs.cancel)
    router.post("/v1/runs/{run_id}/retry", status_code=202)(runs.retry)
    router.post("/v1/runs/{run_id}/fork", status_code=202)(runs.fork)
    router.post("/v1/runs/{run_id}/signals/{name}", status_code=202)(runs.signal)
    return router.routes


class RunRoutes:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self._database = service.database
        self._registry = service.workflows
        self._streams = service.streams
        self._progress = service.progress
        self.desk = RunDesk(service.database, service.engine, service.workflows)
        self._acting = ActingRuns(service.database, self._registry, self.desk, service.delegator)

    async def start(
        self,
        body: StartBody,
        caller: CallerOf,
        http_request: Request,
        response: Response,
        *,
        idempotency_key: IdempotencyKey = None,
        prefer: Prefer = None,
    ) -> RunDocument:
        """Start a run: 202 at once, or 200 with the ended run within `Prefer: wait=S`."""
        run = await self.begin(body, caller, http_request, idempotency_key=idempotency_key)
        response.headers["location"] = f"/v1/runs/{run.id}"
        seconds = read_wait(prefer)
        if seconds is None:
            return run
        response.headers["preference-applied"] = f"wait={seconds:g}"
        if await self.desk.wait_ended(run.id, seconds):
            response.status_code = 200
        return await self.desk.show(run.id, caller)

    async def begin(
        self, body: StartBody, caller: Caller, http_request: Request, *, idempotency_key: str | None = None
    ) -> RunDocument:
        """Start a run, with what it may do for the caller; raises the `Problem` that says what is in the way."""
        request = make_request(self._registry, body, caller, idempotency_key=idempotency_key)
        if self._acting.acts(request.workflow, request.version):
            return await self.desk.show(await self._acting.start(request, caller, http_request), caller)
        return await self.desk.start(request, caller)

    async def start_batch(self, body: BatchBody, caller: CallerOf, http_request: Request) -> Page[RunDocument]:
        """Start many runs in one commit: all of them, or none."""
        requests = [
            make_request(self._registry, start, caller, place=("runs", index)) for index, start in enumerate(body.runs)
        ]
        if any(self._acting.acts(request.workflow, request.version) for request in requests):
            run_ids = await self._acting.start_all(requests, caller, http_request)
            return Page(items=await self.desk.read_all(run_ids))
        return Page(items=await self.desk.start_all(requests, caller))

    async def list(
        self,
        caller: CallerOf,
        *,
        status: Annotated[list[RunStatus] | None, Query()] = None,
        workflow: Annotated[str | None, Query(pattern=STORABLE, max_length=128)] = None,
        tag: Annotated[
            list[Tag] | None, Query(max_length=MOST_TAGS, description="`name:value`, or `name`; of several all")
        ] = None,
        q: Annotated[
            str | None, Query(pattern=STORABLE, max_length=200, description="Text in id, workflow, person or error")
        ] = None,
        since: AwareDatetime | None = None,
        parent: Annotated[
            str | None, Query(pattern=STORABLE, max_length=128, description="Only runs that this run started")
        ] = None,
        mine: Annotated[bool, Query(description="Only my own runs, also where I may see everybody's")] = False,
        cursor: CursorText = None,
        limit: Limit = 50,
    ) -> Page[RunDocument]:
        """List runs, newest first."""
        owner = caller.subject if mine or not caller.sees_all else None
        wanted = RunFilter(
            principal=owner,
            statuses=status or (),
            workflow=workflow,
            tags=tag or (),
            text=q,
            since=since,
            parent=parent,
        )
        return Page[RunDocument].model_validate(await self._database.read(queries.list_runs, wanted, cursor, limit))

    async def show(self, run_id: RunId, caller: CallerOf) -> RunDocument:
        """Show one run with its input, output and views."""
        return await self.desk.show(run_id, caller)

    async def history(
        self, run_id: RunId, caller: CallerOf, *, cursor: CursorText = None, limit: Limit = 100
    ) -> Page[HistoryDocument]:
        """List what the run has done, in order."""
        await self.desk.find(run_id, caller)
        found = await self._database.read(queries.list_history, run_id, cursor, limit)
        return Page[HistoryDocument].model_validate(found)

    async def export(self, run_id: RunId, caller: CallerOf) -> dict[str, Any]:
        """Export the run with its whole history, for `lib_workflows.testing.replay_history`: 413 above 16 MiB."""
        return await self.desk.export(run_id, caller)

    async def compare(
        self,
        run_id: RunId,
        caller: CallerOf,
        *,
        other: Annotated[str, Query(alias="with", pattern=RUN_ID, description="The run to compare it with")],
        limit: Annotated[int, Query(ge=1, le=1_000, description="How many differences to show at most")] = 100,
    ) -> ComparisonDocument:
        """Compare two runs: what differs of them and of their operations; times and attempts do not count."""
        return await self.desk.compare(run_id, other, caller, limit)

    async def logs(
        self,
        run_id: RunId,
        caller: CallerOf,
        *,
        after: Annotated[int, Query(ge=0, lt=2**31, description="Only lines behind the one with this number")] = 0,
        cursor: CursorText = None,
        limit: Limit = 100,
    ) -> Page[LogDocument]:
        """List what the run has logged, in order; the last lines before a crash may be missing."""
        await self.desk.find(run_id, caller)
        found = await self._database.read(partial(queries.list_logs, after=after), run_id, cursor, limit)
        return Page[LogDocument].model_validate(found)

    async def follow(self, request: Request, run_id: RunId, caller: CallerOf) -> Response:
        """Follow a run's events from its start, and its progress live (server-sent events)."""
        run = await self.desk.find(run_id, caller)
        cursor = await self._streams.cursor(request, None)
        if cursor is None:
            cursor = Cursor((await self._streams.resolve(None)).epoch, run.look_back_position)
        wanted = Filter(correlation=run.correlation_id, allowed=OfRun.of(run, caller))
        return self._streams.open(request, cursor, wanted, partial(self._progress.watch, run_id))

    async def view(self, run_id: RunId, name: MessageName, caller: CallerOf) -> Any:
        """Read a view the workflow has set."""
        await self.desk.find(run_id, caller)
        views = await self._database.read(queries.get_views, run_id)
        if name not in views:
            raise Problem(404, "view-not-found", detail=f"run {run_id} has set no view {name!r} so far")
        return views[name]

    async def cancel(self, run_id: RunId, caller: CallerOf, *, body: CancelBody | None = None) -> RunDocument:
        """Cancel a run: it undoes what it did, then ends as cancelled."""
        await self.desk.command(run_id, caller, commands.cancel, (body or CancelBody()).reason)
        return await self.desk.show(run_id, caller)

    async def retry(self, run_id: RunId, caller: CallerOf, http_request: Request) -> RunDocument:
        """Run a failed, cancelled or parked run again from where it failed."""
        await self._acting.retry(run_id, caller, http_request)
        return await self.desk.show(run_id, caller)

    async def fork(
        self, run_id: RunId, caller: CallerOf, body: ForkBody, http_request: Request, response: Response
    ) -> RunDocument:
        """Start a new run that shares this one's history up to an operation."""
        check_run_id(body.id)
        run = await self.desk.show(run_id, caller)
        text = None
        if body.input is not None:
            workflow = find_workflow(self._registry, run.workflow, run.version, status=409)
            text = check_input(workflow, body.input)
        if self._acting.acts(run.workflow, run.version):
            forked = await self._acting.fork(run, caller, body, text, http_request)
        else:
            forked = await self.desk.fork(run_id, caller, body, text)
        response.headers["location"] = f"/v1/runs/{forked}"
        # Whoever forks somebody else's run owns the new one.
        return await self.desk.show(forked, caller)

    async def signal(
        self,
        run_id: RunId,
        name: MessageName,
        caller: CallerOf,
        *,
        payload: Annotated[Any, Body()] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> RunDocument:
        """Send a signal; it is kept until the run waits for it.

        The same `Idempotency-Key` means the signal that was sent with it before, whatever it said.
        """
        key = None if idempotency_key is None else message_id(caller.subject, run_id, name, idempotency_key)
        await self.desk.command(run_id, caller, commands.send_signal, name, payload_text(payload), key)
        return await self.desk.show(run_id, caller)

    async def cancel_matching(self, body: BulkBody, caller: CallerOf) -> BulkAnswer:
        """Cancel every run that matches."""
        return await self.desk.bulk(body, caller, "cancel", commands.cancel)

    async def retry_matching(self, body: BulkBody, caller: CallerOf) -> BulkAnswer:
        """Retry every run that matches."""
        return await self.desk.bulk(body, caller, "retry", rewind.retry)


def message_id(subject: str, run_id: str, name: str, key: str) -> str:
    """What a message to a run is known by that somebody sends with an `Idempotency-Key`: it is one for each sender."""
    return hashlib.blake2b("\0".join((subject, run_id, name, key)).encode(), digest_size=16).hexdigest()


def payload_text(payload: Any) -> str:
    """The JSON of a message to a run; raises `PayloadTooLarge`."""
    return within_limit(encode_json(payload), "payload")
