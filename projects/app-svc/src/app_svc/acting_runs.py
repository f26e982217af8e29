"""Runs of workflows that act for their starter: each begins, and begins again, with a delegation of the caller's.

The AuthService is asked before anything is stored; the delegation is kept in the transaction that stores the run, and
ended again where no run comes of it. Workflows that declare nothing cost nothing here.
"""

from sqlalchemy import select
from starlette.requests import Request

from app_svc import delegations
from app_svc.authorization import Caller
from app_svc.delegator import Delegator
from app_svc.documents import RunDocument
from app_svc.run_bodies import ForkBody
from app_svc.run_desk import RunDesk
from lib_auth.delegations import GivenDelegation
from lib_events.clock import SystemClock
from lib_events.database import Connection, Database
from lib_workflows import Registry
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.runs import rewind
from lib_workflows.runs.commands import StartRequest
from lib_workflows.tables import runs
from lib_workflows.values.identifiers import time_ordered_id


class ActingRuns:
    """Starts, forks and retries runs with what they may do for the caller."""

    def __init__(self, database: Database, registry: Registry, desk: RunDesk, delegator: Delegator) -> None:
        self._database = database
        self._registry = registry
        self._that_act = {(each.name, each.version) for each in registry.workflows if each.acts_for_starter}
        self._desk = desk
        self._delegator = delegator

    def acts(self, workflow: str, version: int) -> bool:
        """Whether runs of that workflow act for whoever starts them."""
        return (workflow, version) in self._that_act

    async def start(self, request: StartRequest, caller: Caller, http_request: Request) -> str:
        """Start one run and return its id; raises the `Problem` that says what is in the way."""
        if await self._database.read(_is_there, request):
            return (await self._desk.start(request, caller)).id
        return (await self.start_all([request], caller, http_request))[0]

    async def start_all(self, requests: list[StartRequest], caller: Caller, http_request: Request) -> list[str]:
        """Start runs in one commit and return their ids."""
        given: dict[int, GivenDelegation] = {}
        async with self._delegator.ending_on_error() as begun:
            for index, request in enumerate(requests):
                if not self.acts(request.workflow, request.version):
                    continue
                request.id = request.id or time_ordered_id(SystemClock().micros())
                workflow = self._find(request.workflow, request.version)
                given[index] = await self._delegator.begin_run(
                    workflow, request.id, caller, http_request, run_at=request.run_at
                )
                begun.append(given[index].id)
            started = await self._desk.start_given(requests, caller, given)
        known = [index for index, (_, is_new) in enumerate(started) if not is_new and index in given]
        await self._delegator.end(*(given[index].id for index in known))  # somebody was first, at the same moment
        return [run_id for run_id, _ in started]

    async def fork(
        self, run: RunDocument, caller: Caller, body: ForkBody, text: str | None, http_request: Request
    ) -> str:
        """Fork a visible run: the new one acts for whoever forks it."""
        if body.id is not None and await self._database.read(_has_id, body.id):
            return await self._desk.fork(run.id, caller, body, text)
        chosen = body.model_copy(update={"id": body.id or time_ordered_id(SystemClock().micros())})
        workflow = self._find(run.workflow, run.version)
        async with self._delegator.ending_on_error() as begun:
            given = await self._delegator.begin_run(workflow, str(chosen.id), caller, http_request)
            begun.append(given.id)
            return await self._desk.fork(run.id, caller, chosen, text, given)

    async def retry(self, run_id: str, caller: Caller, http_request: Request) -> None:
        """Retry a visible run. Only whoever started it can let it act again: for an operator it goes on without."""
        run = await self._desk.find(run_id, caller)
        if not self.acts(run.workflow, run.version) or not caller.owns(run):
            await self._desk.command(run_id, caller, rewind.retry)
            return
        workflow = self._find(run.workflow, run.version)
        async with self._delegator.ending_on_error() as begun:
            given = await self._delegator.begin_run(workflow, run_id, caller, http_request)
            begun.append(given.id)
            before = await self._desk.command(run_id, caller, _retry, given, caller.subject)
        await self._delegator.end(before)

    def _find(self, workflow: str, version: int) -> AnyWorkflow:
        return self._registry.find(workflow, version)


def _retry(connection: Connection, run_id: str, given: GivenDelegation, principal: str) -> str | None:
    rewind.retry(connection, run_id)
    return delegations.keep(connection, "run", run_id, given, principal)


def _is_there(connection: Connection, request: StartRequest) -> bool:
    """Whether the request means a run that there is: then nothing has to be allowed."""
    if request.id is not None and _has_id(connection, request.id):
        return True
    if request.idempotency_key is None or request.principal is None:
        return False
    same = (runs.c.principal == request.principal.subject) & (runs.c.idempotency_key == request.idempotency_key)
    return connection.scalar(select(runs.c.id).where(same)) is not None


def _has_id(connection: Connection, run_id: str) -> bool:
    return connection.scalar(select(runs.c.id).where(runs.c.id == run_id)) is not None
