"""The REST of queues: what they hold, how many of their runs may begin, and whether any."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import BaseRoute

from app_svc.authorization import CallerOf
from app_svc.page import STORABLE, CursorText, Limit, Page
from app_svc.schedule_bodies import PauseBody
from app_svc.service import Service
from lib_events.problem import Problem, invalid_input
from lib_workflows import QueueLimits, Rate
from lib_workflows.authoring.queue import MOST_RUNS
from lib_workflows.errors import QueueDeclared, QueueInvalid
from lib_workflows.queueing.queues import QueueView

LONGEST_SECONDS = 366 * 86_400.0
EXAMPLE: dict[str, Any] = {"concurrency": 5, "rate": {"runs": 100, "seconds": 60}}

Name = Annotated[str, Path(min_length=1, max_length=128, pattern=STORABLE)]


class RateDocument(BaseModel):
    """How many runs begin in a time: so many at once after a rest, and then steadily."""

    model_config = ConfigDict(extra="forbid")

    runs: int = Field(ge=1, le=MOST_RUNS)
    seconds: float = Field(ge=0.001, le=LONGEST_SECONDS)


class LimitsBody(BaseModel):
    """The limits of a queue; null, or nothing said: none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    concurrency: int | None = Field(
        default=None, ge=1, le=MOST_RUNS, description="Runs under way at most, from their beginning to their end"
    )
    rate: RateDocument | None = Field(default=None, description="How fast runs begin")
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=STORABLE,
        description="What runs take turns by: the `queue_key` they are started with. The field of the input of this "
        "name is looked at only where the code declares the queue's limits",
    )
    per_key: int | None = Field(default=None, ge=1, le=MOST_RUNS, description="Runs of each key under way at most")
    rate_per_key: RateDocument | None = Field(default=None, description="How fast runs of each key begin")

    def limits(self) -> QueueLimits:
        """As the engine has them; raises `QueueInvalid`."""
        return QueueLimits(
            concurrency=self.concurrency,
            rate=_rate(self.rate),
            key=self.key,
            per_key=self.per_key,
            rate_per_key=_rate(self.rate_per_key),
        )


class QueueDocument(BaseModel):
    """A queue."""

    name: str
    paused: bool = Field(description="None of its runs begins; those under way go on")
    note: str = Field(description="Why it is paused")
    concurrency: int | None = Field(description="Runs under way at most")
    rate: RateDocument | None = Field(description="How fast runs begin")
    key: str | None = Field(description="The field of the input by which its runs take turns")
    per_key: int | None = Field(description="Runs of each key under way at most")
    rate_per_key: RateDocument | None = Field(description="How fast runs of each key begin")
    declared: bool = Field(description="Its limits are declared in code, and changed there")
    workflows: list[str] = Field(description="Those whose runs go there unless they are started elsewhere")
    queued: int = Field(description="Runs that have not begun")
    due: int = Field(description="Those of them whose time has come")
    due_since: datetime | None = Field(description="Since when the first of them waits")
    under_way: int = Field(description="Runs that have begun and not ended")


def queue_routes(service: Service, *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/queues`."""
    router = APIRouter(tags=["queues"], route_class=route_class)
    routes, one = QueueRoutes(service), "/v1/queues/{name}"
    router.get("/v1/queues")(routes.list)
    router.get(one)(routes.show)
    router.put(one)(routes.limit)
    router.post(one + "/pause")(routes.pause)
    router.post(one + "/resume")(routes.resume)
    return router.routes


class QueueRoutes:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self._queues = service.engine.queues

    async def list(self, _caller: CallerOf, cursor: CursorText = None, limit: Limit = 50) -> Page[QueueDocument]:
        """List the queues: of the workflows here, of runs that have not ended, and those with limits; by name."""
        page = await self._queues.list(cursor=cursor, limit=limit)
        return Page(items=[_describe(queue) for queue in page.items], next_cursor=page.next_cursor)

    async def show(self, name: Name, _caller: CallerOf) -> QueueDocument:
        """Show a queue; one that nobody has used has no limits and no runs."""
        return _describe(await self._queues.get(name))

    async def limit(self, name: Name, body: LimitsBody, _caller: CallerOf) -> QueueDocument:
        """Give a queue its limits, which count what is under way already."""
        with _problems():
            return _describe(await self._queues.limit(name, body.limits()))

    async def pause(self, name: Name, _caller: CallerOf, *, body: PauseBody | None = None) -> QueueDocument:
        """Let none of the queue's runs begin until it is resumed; those under way go on."""
        return _describe(await self._queues.pause(name, note=body.note if body else ""))

    async def resume(self, name: Name, _caller: CallerOf) -> QueueDocument:
        """Let the queue's runs begin again."""
        return _describe(await self._queues.resume(name))


def _describe(queue: QueueView) -> QueueDocument:
    return QueueDocument(
        name=queue.name,
        paused=queue.paused,
        note=queue.note,
        concurrency=queue.limits.concurrency,
        rate=_describe_rate(queue.limits.rate),
        key=queue.limits.key,
        per_key=queue.limits.per_key,
        rate_per_key=_describe_rate(queue.limits.rate_per_key),
        declared=queue.declared,
        workflows=list(queue.workflows),
        queued=queue.queued,
        due=queue.due,
        due_since=queue.due_since,
        under_way=queue.under_way,
    )


def _rate(document: RateDocument | None) -> Rate | None:
    return None if document is None else Rate(document.runs, timedelta(seconds=document.seconds))


def _describe_rate(rate: Rate | None) -> RateDocument | None:
    return None if rate is None else RateDocument(runs=rate.runs, seconds=rate.per.total_seconds())


@contextmanager
def _problems() -> Iterator[None]:
    """What is wrong with limits, as HTTP says it."""
    try:
        yield
    except QueueInvalid as error:
        raise invalid_input([{"loc": ("body", error.field), "msg": error.problem}]) from error
    except QueueDeclared as error:
        raise Problem(409, "queue-declared", "The queue's limits are declared in code", str(error)) from error
