"""What a caller holds of a run: ask for its result, talk to it, cancel it."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lib_events.database import Connection
from lib_workflows.authoring.messages import Principal, Signal, Update, check_principal
from lib_workflows.authoring.workflow import AnyWorkflow, Workflow
from lib_workflows.errors import RunNotFound, UpdateRejected
from lib_workflows.execution.history import run_error
from lib_workflows.reading import queries
from lib_workflows.runs import commands, rewind
from lib_workflows.values.codec import decode_json, encode_given
from lib_workflows.values.durations import check_optional_seconds
from lib_workflows.values.failure import decode_record
from lib_workflows.values.identifiers import check_chosen_id, update_id
from lib_workflows.values.texts import check_name, check_text

if TYPE_CHECKING:
    from lib_workflows.engine import Engine


class RunHandle[R]:
    """A run, by its id; the run itself may be anywhere."""

    __slots__ = ("_engine", "_workflow", "id")

    def __init__(self, engine: "Engine", run_id: str, workflow: Workflow[*tuple[Any, ...], R] | None) -> None:
        self.id = run_id
        self._engine = engine
        self._workflow = workflow

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - the embedding API
        """Wait for the run's result, at most `timeout` seconds (`TimeoutError`). Raises the run's error,
        `RunCancelled`, or `Nondeterministic` for a parked run.
        """
        check_optional_seconds(timeout, "timeout of result")
        if timeout is None:
            status, output, error = await self._engine.results.wait(self.id)
        else:
            async with asyncio.timeout(timeout):
                status, output, error = await self._engine.results.wait(self.id)
        if status == "completed":
            text = output or "null"
            workflow = self._workflow
            result: R = decode_json(text) if workflow is None else workflow.signature.result.decode(text)
            return result
        raise run_error(self.id, decode_record(error or '{"type": "Error", "message": "unknown"}'))

    async def status(self) -> str:
        """The run's status now."""
        run = await self._engine.database.read(queries.get_run, self.id)
        if run is None:
            raise RunNotFound(self.id)
        return run.status

    async def signal[T](self, signal: Signal[T], value: T, *, idempotency_key: str | None = None) -> None:
        """Send a signal; durable when it returns. Sent to the run again with the same key, it is the one of before."""
        payload = signal.codec.encode(value)
        now = self._engine.clock.micros()
        await self._engine.database.transact(
            lambda connection: commands.send_signal(connection, self.id, signal.name, payload, idempotency_key, now=now)
        )

    async def update[In, Out](
        self,
        update: Update[In, Out],
        value: In,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Out:
        """Send an update and wait for the reply; raises `UpdateRejected`, or `UpdateNotFound` once its run is gone."""
        check_optional_seconds(timeout, "timeout of update")
        new_id, payload, now = update_id(), update.codec.encode(value), self._engine.clock.micros()
        await self._engine.database.transact(
            lambda connection: commands.send_update(
                connection, self.id, update.name, payload, update_id=new_id, now=now
            )
        )
        async with asyncio.timeout(timeout):
            status, reply = await self._engine.results.wait_update(new_id)
        if status == "rejected":
            raise UpdateRejected(update.name, reply or "")
        return update.reply_codec.decode(reply or "null")

    async def decide(
        self,
        name: str,
        *,
        approved: bool,
        by: Principal,
        comment: str | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> None:
        """Decide what the run asks by `ctx.approval(name, …)`, once; durable when it returns.

        Whether `by` is whom it asks (`to`) is the caller's to check. Raises `ApprovalNotFound` before it has asked,
        `ApprovalDecided` once somebody has decided or its time is over.
        """
        if comment is not None:
            check_text(comment, "comment of a decision")
        if form is not None:
            encode_given(form, "form of a decision")

        check_principal(by)

        def decide(connection: Connection) -> None:
            approval = commands.asked_for(connection, self.id, name)
            commands.decide(connection, approval, approved=approved, by=by, comment=comment, form=form)

        await self._engine.database.transact(decide)

    async def cancel(self, reason: str = "cancelled") -> None:
        """Ask the run to stop and to undo what it did; wait for the end with `result`.

        A parked run undoes what its code, as it is today, still asks for like its history; what else there is to undo
        is told in its history as an undo that failed (`UndoUnknown`). Mend the code first to have all of it undone.
        """
        check_text(reason, "reason of a cancellation")
        await self._engine.database.transact(commands.cancel, self.id, reason, self._engine.clock.micros())

    async def retry(self) -> None:
        """Run a failed, cancelled or parked run again; what succeeded before its failure is kept."""
        await self._engine.database.transact(rewind.retry, self.id, self._engine.clock.micros())

    async def fork(
        self,
        from_operation: str | None = None,
        *,
        input: Any = None,  # noqa: A002 - the word of the API
        id: str | None = None,  # noqa: A002 - the word of the API
    ) -> "RunHandle[R]":
        """Start a new run with this one's history before `from_operation` (default: none of it); of what was undone it
        has nothing, but does it anew. Should it fail, it undoes what it has done itself, and nothing of this run.

        `input` (a value of the workflow's input type) replaces the run's own. Raises `OperationNotFound`.
        """
        if id is not None:
            check_chosen_id(check_name(id, "id of a run"))
        payload = None
        if input is not None:
            workflow = self._workflow or await self._find_workflow()
            payload = workflow.validate_input(input)
        now = self._engine.clock.micros()
        forked = await self._engine.database.transact(
            lambda connection: rewind.fork(
                connection, self.id, from_operation=from_operation, input=payload, new_id=id, now=now
            )
        )
        return RunHandle(self._engine, forked, self._workflow)

    async def _find_workflow(self) -> AnyWorkflow:
        run = await self._engine.database.read(queries.get_run, self.id)
        if run is None:
            raise RunNotFound(self.id)
        return self._engine.registry.find(run.workflow, run.version)

    async def view(self, name: str) -> Any:
        """The value of a view, or None."""
        return await self._engine.database.read(queries.get_view, self.id, name)

    def __repr__(self) -> str:
        return f"<run {self.id}>"
