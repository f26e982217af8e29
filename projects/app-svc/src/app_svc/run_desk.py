"""Commands on runs for a caller: what the caller may not see is as if it did not exist."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app_svc import delegations
from app_svc.acting import describe_acting
from app_svc.authorization import Caller
from app_svc.documents import (
    ActingDocument,
    ComparisonDocument,
    DifferenceDocument,
    HistoryDocument,
    ProgressDocument,
    RunDocument,
)
from app_svc.run_bodies import BulkAnswer, BulkBody, ForkBody
from lib_auth.delegations import GivenDelegation
from lib_events.clock import SystemClock
from lib_events.database import Connection, Database
from lib_events.problem import Problem, invalid_input
from lib_workflows import Engine, Registry
from lib_workflows.errors import CommandRefused, OperationNotFound, RunConflict, RunNotFound, UpdateNotFound
from lib_workflows.reading import queries
from lib_workflows.reading.comparison import Difference, compare_facts, compare_runs
from lib_workflows.reading.history_export import export_run, history_size
from lib_workflows.reading.queries import RunView
from lib_workflows.runs import commands, results, rewind
from lib_workflows.runs.commands import StartRequest
from lib_workflows.runs.state import TRANSITIONS, Move
from lib_workflows.values.codec import decode_json

BULK_LIMIT = 1_000
EXPORT_BYTES = 16 * 1024 * 1024


class RunDesk:
    """Starts, shows and changes runs for a caller."""

    def __init__(self, database: Database, engine: Engine, registry: Registry) -> None:
        self._database = database
        self._engine = engine
        self._acting = {(each.name, each.version): each.acts_for_starter for each in registry.workflows}

    async def start(self, request: StartRequest, caller: Caller) -> RunDocument:
        """Start one run; raises the `Problem` 409 for an id that means something else."""
        if request.is_plain:
            (began,) = await self._engine.start_new([request])
            document = RunDocument.model_validate(began)
            document.input = None if request.input is None else decode_json(request.input)
            return document
        try:
            run_id = await self._engine.submit(request)
        except RunConflict as conflict:
            raise _taken(conflict.run_id, conflict.what) from conflict
        if request.id is not None and run_id != request.id:
            raise _taken(str(request.idempotency_key), "idempotency key")
        run = await self._read(run_id)
        if run is None or not caller.owns(run):
            raise _taken(run_id, "id")  # somebody else's: nothing of it is told
        return await self._document(run)

    async def start_all(self, requests: list[StartRequest], caller: Caller) -> list[RunDocument]:
        """Start runs in one commit."""
        if all(request.is_plain for request in requests):
            return [RunDocument.model_validate(began) for began in await self._engine.start_new(requests)]
        return await self.read_all([run_id for run_id, _ in await self.start_given(requests, caller, {})])

    async def read_all(self, run_ids: Sequence[str]) -> list[RunDocument]:
        """Return runs of the caller's, as in a list."""
        found = await self._database.read(queries.get_runs, run_ids)
        return [RunDocument.model_validate(found[run_id]) for run_id in run_ids]

    async def start_given(
        self, requests: list[StartRequest], caller: Caller, given: Mapping[int, GivenDelegation]
    ) -> list[tuple[str, bool]]:
        """Start runs in one commit, some with what they may do for the caller; returns their ids and which are new."""
        try:
            return await self._database.transact(_start_all, requests, caller, given)
        except RunConflict as conflict:
            raise _taken(conflict.run_id, conflict.what) from conflict

    async def wait_ended(self, run_id: str, seconds: float) -> bool:
        """Wait at most `seconds` for the run's end; returns whether it has come."""
        try:
            async with asyncio.timeout(seconds):
                await self._engine.results.wait(run_id)
        except TimeoutError:
            return False
        return True

    async def wait_answered(self, run_id: str, update_id: str, seconds: float) -> tuple[str, str | None]:
        """Wait at most `seconds` for the answer to an update; returns its status and reply."""
        try:
            if not seconds:
                return (await self._database.read(results.read_update, update_id)).answer or ("pending", None)
            async with asyncio.timeout(seconds):
                return await self._engine.results.wait_update(update_id)
        except TimeoutError:
            return "pending", None
        except UpdateNotFound as gone:
            raise _not_found(run_id) from gone

    async def answer_to(self, update_id: str, caller: Caller, seconds: float) -> tuple[str, str | None]:
        """Return status and reply of an update, after at most `seconds`; raises the `Problem` 404."""
        try:
            run = await self.find((await self._database.read(results.read_update, update_id)).run, caller)
        except (UpdateNotFound, Problem) as missing:
            detail = f"no update {update_id!r} of a run that is visible to you; send it again"
            raise Problem(404, "update-not-found", "There is no such update", detail) from missing
        return await self.wait_answered(run.id, update_id, seconds)

    async def find(self, run_id: str, caller: Caller) -> RunView:
        """Return a run, as in a list; raises the `Problem` 404 unless the caller may see it."""
        try:
            return await self._database.read(_find, run_id, caller)
        except RunNotFound as missing:
            raise _not_found(run_id) from missing

    async def show(self, run_id: str, caller: Caller) -> RunDocument:
        """Return the whole run, with its live progress where this process knows it."""
        run = await self._read(run_id)
        if run is None or not caller.may_see(run):
            raise _not_found(run_id)
        return await self._document(run)

    async def _read(self, run_id: str) -> RunView | None:
        return await self._database.read(queries.get_run, run_id)

    async def _document(self, run: RunView) -> RunDocument:
        document = RunDocument.model_validate(run)
        fraction, text = self._engine.progress.get(run.id, (None, ""))
        document.progress = None if fraction is None else ProgressDocument(fraction=fraction, text=text)
        document.acting = await self._acting_of(run)
        return document

    async def _acting_of(self, run: RunView) -> ActingDocument | None:
        """For whom a run that goes on acts; None where its workflow acts for nobody anyway."""
        declared = self._acting.get((run.workflow, run.version))
        if not declared or run.ended_at is not None:
            return None
        held = await self._database.read(delegations.find, run.id)
        return describe_acting(declared, held, SystemClock().micros())

    async def compare(self, run_id: str, other: str, caller: Caller, limit: int) -> ComparisonDocument:
        """Compare two visible runs, in one snapshot; raises the `Problem` 404."""
        try:
            fields, differences = await self._database.read(_compare, run_id, other, caller)
        except RunNotFound as missing:
            raise _not_found(missing.run_id) from missing
        return ComparisonDocument(
            run=run_id,
            other=other,
            fields=list(fields),
            differences=[_difference(each) for each in differences[:limit]],
            total=len(differences),
        )

    async def export(self, run_id: str, caller: Caller) -> dict[str, Any]:
        """Return a visible run and its history as `replay_history` takes them; raises the `Problem` 404 or 413."""
        try:
            return await self._database.read(_export, run_id, caller)
        except RunNotFound as missing:
            raise _not_found(run_id) from missing

    async def command[*A, R](
        self, run_id: str, caller: Caller, function: Callable[[Connection, str, *A], R], *args: *A
    ) -> R:
        """Run a command on a visible run; raises the `Problem` 404 or 409."""
        try:
            return await self._database.transact(_command, run_id, caller, function, *args)
        except RunNotFound as missing:
            raise _not_found(run_id) from missing
        except CommandRefused as refused:
            raise Problem(
                409, "run-status", "The run cannot do that now", str(refused), status_of_run=refused.status
            ) from refused
        except RunConflict as conflict:
            raise _taken(conflict.run_id, conflict.what) from conflict
        except OperationNotFound as missing:
            raise invalid_input([{"loc": ("body", "from_step"), "msg": str(missing)}]) from missing

    async def fork(
        self, run_id: str, caller: Caller, body: ForkBody, text: str | None, given: GivenDelegation | None = None
    ) -> str:
        """Fork a visible run for the caller and return the new run's id."""

        def fork(connection: Connection, source: str) -> str:
            by = caller.as_run_principal()
            forked = rewind.fork(
                connection, source, from_operation=body.from_step, input=text, new_id=body.id, principal=by
            )
            if given is not None:
                delegations.keep(connection, "run", forked, given, caller.subject)
            run = queries.get_runs(connection, [forked])[forked]
            if run.forked_from != source or not caller.owns(run):
                raise RunConflict(forked)  # there was a run of that id and input already, and it is no such fork
            return forked

        return await self.command(run_id, caller, fork)

    async def update(self, run_id: str, caller: Caller, name: str, payload: str, update_id: str) -> None:
        """Leave an update for a visible run."""

        def send(connection: Connection, target: str) -> None:
            commands.send_update(connection, target, name, payload, update_id=update_id, principal=caller.subject)

        await self.command(run_id, caller, send)

    async def bulk(
        self, body: BulkBody, caller: Caller, move: Move, function: Callable[[Connection, str], Any]
    ) -> BulkAnswer:
        """Run a command on each run that matches, and still does when its turn comes, in a transaction of its own.

        A child is not retried beside its parent, which starts another one: both would do the same.
        """
        # Where no status is asked for: those the command can change, else runs of long ago would fill every answer.
        possible = [status for status, found in TRANSITIONS if found == move]
        wanted = replace(body.filter.as_filter(), statuses=body.filter.status or possible)
        ids = await self._database.read(queries.list_run_ids, wanted, BULK_LIMIT + 1)
        more, ids = len(ids) > BULK_LIMIT, ids[:BULK_LIMIT]
        left = await self._database.read(queries.begun_again_by_parents, ids) if move == "retry" else {}
        refused = {run_id: f"its parent {parent} is retried, and starts it anew" for run_id, parent in left.items()}
        answer = BulkAnswer(matched=len(ids), changed=[], refused=refused, more=more)
        ids = [run_id for run_id in ids if run_id not in refused]

        def change(connection: Connection, run_id: str) -> None:
            commands.lock_run(connection, run_id)
            if not queries.matches(connection, run_id, wanted):
                detail = "it matches the filter no more: something has happened to it meanwhile"
                raise Problem(409, "run-changed", "The run has changed", detail)
            function(connection, run_id)

        for run_id in () if body.dry_run else ids:
            try:
                await self.command(run_id, caller, change)
            except Problem as problem:
                answer.refused[run_id] = problem.detail
            else:
                answer.changed.append(run_id)
        if body.dry_run:
            answer.changed = ids
        return answer


def _start_all(
    connection: Connection, requests: list[StartRequest], caller: Caller, given: Mapping[int, GivenDelegation]
) -> list[tuple[str, bool]]:
    started: list[tuple[str, bool]] = []
    for index, request in enumerate(requests):
        run_id, is_new = commands.start(connection, request)
        if not is_new and not caller.owns(queries.get_runs(connection, [run_id])[run_id]):
            raise RunConflict(run_id)  # it is somebody else's: nothing of it is told
        if is_new and index in given:
            delegations.keep(connection, "run", run_id, given[index], caller.subject)
        started.append((run_id, is_new))
    return started


def _command[*A, R](
    connection: Connection, run_id: str, caller: Caller, function: Callable[[Connection, str, *A], R], *args: *A
) -> R:
    """Look whose run it is and change it, in one transaction."""
    _find(connection, run_id, caller)
    return function(connection, run_id, *args)


def _find(connection: Connection, run_id: str, caller: Caller) -> RunView:
    run = queries.get_runs(connection, [run_id]).get(run_id)
    if run is None or not caller.may_see(run):
        raise RunNotFound(run_id)
    return run


def _compare(
    connection: Connection, run_id: str, other: str, caller: Caller
) -> tuple[Sequence[str], Sequence[Difference]]:
    found = []
    for each in (run_id, other):
        _find(connection, each, caller)
        run = queries.get_run(connection, each)
        assert run is not None  # noqa: S101 - it has just been found, in the same snapshot
        found.append(run)
    return compare_facts(*found), compare_runs(connection, run_id, other)


def _export(connection: Connection, run_id: str, caller: Caller) -> dict[str, Any]:
    _find(connection, run_id, caller)
    size = history_size(connection, run_id)
    if size > EXPORT_BYTES:
        detail = f"a history must have at most {EXPORT_BYTES} bytes to be exported, got {size}; read it in pages"
        raise Problem(413, "history-too-large", "This history is too large to be exported", detail)
    return export_run(connection, run_id)


def _difference(difference: Difference) -> DifferenceDocument:
    one, other = (
        None if entry is None else HistoryDocument.model_validate(entry) for entry in (difference.one, difference.other)
    )
    return DifferenceDocument(operation=difference.operation, fields=list(difference.fields), run=one, other=other)


def _not_found(run_id: str) -> Problem:
    return Problem(404, "run-not-found", "There is no such run", f"no run {run_id!r} is visible to you; list your runs")


def _taken(run_id: str, what: str) -> Problem:
    detail = f"{what} {run_id!r} is taken by another run or another input; choose a new one"
    return Problem(409, "run-conflict", f"This {what} is taken", detail)
