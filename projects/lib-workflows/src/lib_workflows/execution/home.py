"""The engine as executors see it: what they need of whoever they live in, which is in `workers`."""

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lib_events.database import Database
from lib_events.event import EncodedEvent
from lib_events.statement import Fence, Write
from lib_workflows.authoring.delegation import TokenSource
from lib_workflows.authoring.operation import RunChild, StartRun
from lib_workflows.events.looks import EventLooks
from lib_workflows.run_logs import RunLogs
from lib_workflows.runs.commands import StartRequest
from lib_workflows.runs.record import Child
from lib_workflows.steps.places import StepPlaces
from lib_workflows.timers import Timers

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


class Kin(Protocol):
    """What an executor needs for the runs it starts."""

    def start_child(self, parent: "Executor", path: str, operation: RunChild[Any]) -> None: ...
    def request_of(
        self, starter: "Executor", path: str, operation: RunChild[Any] | StartRun, now: int
    ) -> StartRequest: ...
    async def start_named(self, request: StartRequest, fence: Fence | None) -> Child: ...
    def start_apart(self, starter: "Executor", path: str, operation: StartRun) -> "Start": ...
    def cancel_child(self, parent: "Executor", operation: str) -> None: ...


class Home(Protocol):
    """What an executor needs of the engine it lives in."""

    database: Database
    event_looks: EventLooks
    logs: RunLogs
    timers: Timers
    places: StepPlaces
    tokens: TokenSource | None
    surroundings: contextvars.Context
    is_draining: bool

    @property
    def kinship(self) -> Kin: ...
    @property
    def worker_id(self) -> str: ...
    @property
    def long_micros(self) -> int: ...
    @property
    def fence(self) -> Fence | None: ...

    def run_ended(self, executor: "Executor", saving: asyncio.Future[None]) -> None: ...
    def run_lost(self, executor: "Executor", error: BaseException) -> None: ...
    def run_rests(self, executor: "Executor") -> None: ...
    def let_go(self, executor: "Executor") -> None: ...
    async def continue_as_new(self, executor: "Executor", payload: str | None) -> None: ...
    def spawn(self, work: Any) -> asyncio.Task[Any]: ...
    def answered(self, executor: "Executor", update_id: str) -> None: ...
    def report_progress(self, run_id: str, fraction: float | None, text: str, detail: Any = None) -> None: ...


class Start(NamedTuple):
    """A run that is started together with a history row."""

    run_id: str
    input: str | None
    write: Write
    event: EncodedEvent
