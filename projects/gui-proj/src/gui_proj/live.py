"""What happens, told to browsers: one upstream event stream per session becomes small notices for its tabs.

A notice names topics (`runs`, `run:<id>`, `schedules`, `queues`, `webhooks`, `approvals`, `events`); a page refetches
its own regions with those topics. So a notice can be lost, doubled or late without harm, and carries nothing that has
to be protected.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from gui_proj.app_service import AppService, AppServiceDown, AppServiceRefused
from gui_proj.resources import Operation
from gui_proj.session import AuthServiceDown, Session, SignedOut

logger = logging.getLogger(__name__)

EVERYTHING: Final = "*"
MOST_WATCHED_RUNS: Final = 6
MOST_WAITING_NOTICES: Final = 200
HEARTBEAT_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 2.0
REOPEN_SECONDS: Final = 0.1


def topics_of(event: Mapping[str, Any]) -> list[str]:
    """Which regions of pages an event concerns."""
    name = str(event.get("type", ""))
    subject = str(event.get("subject") or "")
    payload = event.get("data") if isinstance(event.get("data"), dict) else {}
    assert isinstance(payload, dict)  # noqa: S101 - for the type checker
    topics = ["events"]
    if name.startswith("evs.approval."):
        topics += ["approvals", "runs", f"run:{payload.get('run', '')}"]
    elif name.startswith("evs.run."):
        topics += ["runs", f"run:{subject}"]
        topics += [f"run:{payload['parent']}"] if payload.get("parent") else []
    elif name.startswith("evs.step."):
        topics.append(f"run:{subject}")
    elif name.startswith("evs.schedule."):
        topics += ["schedules", f"schedule:{subject}"]
    elif name.startswith("evs.queue."):
        topics.append("queues")
    elif name.startswith("evs.webhook."):
        topics += ["webhooks", f"webhook:{subject}"]
    elif name.startswith("evs.access."):
        topics.append("access")
    return topics


async def event_data(answer: httpx.Response) -> AsyncIterator[str]:
    """The data of each event of an event stream (HTML, section 9.2); comments are heartbeats and say nothing."""
    data: list[str] = []
    async for line in answer.aiter_lines():
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


type Notice = dict[str, Any]


class UnderWay:
    """The operations of a run that have begun and not ended: they are in no history yet, only in its events."""

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        data = event.get("data")
        if not isinstance(data, dict) or "operation" not in data:
            return
        operation = str(data["operation"])
        if event.get("type") in {"evs.step.completed", "evs.step.failed"}:
            self.operations.pop(operation, None)
            return
        known = self.operations.get(operation)
        self.operations[operation] = {
            "position": 0,
            "operation": operation,
            "kind": str(data.get("kind") or "step"),
            "name": str(data.get("name") or ""),
            "status": "running",
            "attempt": int(data.get("attempt") or 1),
            "started_at": known["started_at"] if known else event.get("time"),
            "ended_at": None,
        }


@dataclass(eq=False, slots=True)
class Listener:
    """One open `/live` connection of a browser."""

    notices: asyncio.Queue[Notice] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING_NOTICES))

    def offer(self, notice: Notice) -> None:
        if self.notices.full():  # too slow to hear each: one word says it all
            while not self.notices.empty():
                self.notices.get_nowait()
            notice = {"topics": [EVERYTHING]}
        self.notices.put_nowait(notice)


class LiveFeed:
    """Follows the AppService for one session as long as somebody listens."""

    def __init__(self, app: AppService, session: Session) -> None:
        self.app = app
        self.session = session
        self.listeners: set[Listener] = set()
        self.watched: dict[str, asyncio.Task[None]] = {}
        self.under_way: dict[str, UnderWay] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._spawn(self._follow("/v1/events"), "live feed")

    def watch(self, run_id: str) -> None:
        """Also hear what only the run's own stream tells: its progress."""
        if run_id in self.watched:
            self.watched[run_id] = self.watched.pop(run_id)  # most recently seen last
            return
        if len(self.watched) >= MOST_WATCHED_RUNS:
            oldest = next(iter(self.watched))
            self.under_way.pop(oldest, None)
            self.watched.pop(oldest).cancel()
        path = f"/v1/runs/{quote(run_id, safe='')}/events"
        under_way = self.under_way[run_id] = UnderWay()
        task = self._spawn(self._follow(path, under_way), f"live run {run_id}")
        self.watched[run_id] = task
        task.add_done_callback(lambda done: self._unwatch(run_id, done))

    def _unwatch(self, run_id: str, task: asyncio.Task[None]) -> None:
        if self.watched.get(run_id) is task:
            del self.watched[run_id]
            self.under_way.pop(run_id, None)

    def offer(self, notice: Notice) -> None:
        for listener in self.listeners:
            listener.offer(notice)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, path: str, under_way: UnderWay | None = None) -> None:
        """Reads the stream again and again: it ends with its token, and a service may be restarted.

        Each time it reads from now on. Whatever was missed, pages catch up with it; a place to go on from would be
        refused for ever once the AppService's log was restored.
        """
        while True:
            pause = RETRY_SECONDS
            try:
                async with self.app.stream(self.session, path) as answer:
                    if under_way is None:
                        self.offer({"topics": [EVERYTHING]})
                    await self._hear(answer, under_way)
                pause = REOPEN_SECONDS
            except SignedOut:
                self.offer({"bye": True})
                return
            except AppServiceRefused as error:
                logger.info("the live feed %s was refused: %s", path, error)
                if error.status in {403, 404}:
                    return
            except (AppServiceDown, AuthServiceDown):
                self.offer({"down": True})
            if under_way is not None:
                return  # a page that still shows the run asks again
            await asyncio.sleep(pause)

    async def _hear(self, answer: httpx.Response, under_way: UnderWay | None) -> None:
        with suppress(httpx.HTTPError):  # a stream that breaks is opened again by the caller
            async for data in event_data(answer):
                event = json.loads(data)
                if under_way is not None:
                    under_way.hear(event)
                self.offer({"topics": topics_of(event)})


class LiveFeeds:
    """The feeds of all sessions that have a page open."""

    def __init__(self, app: AppService) -> None:
        self.app = app
        self._feeds: dict[str, LiveFeed] = {}

    def watch_run(self, session: Session, run_id: str) -> None:
        """A page shows this run and it goes on; without an open page nothing is followed."""
        feed = self._feeds.get(session.digest)
        if feed is not None:
            feed.watch(run_id)

    def under_way(self, session: Session, run_id: str) -> list[Operation]:
        """What the run is doing right now, as far as somebody has been listening to it."""
        feed = self._feeds.get(session.digest)
        found = feed.under_way.get(run_id) if feed is not None else None
        return list(found.operations.values()) if found is not None else []

    def end(self, session: Session) -> None:
        """The session is over: its pages are told, and show it."""
        feed = self._feeds.get(session.digest)
        if feed is not None:
            feed.offer({"bye": True})

    async def close(self) -> None:
        """End every stream, so that the server can stop; browsers come back by themselves."""
        for feed in list(self._feeds.values()):
            feed.offer({"closing": True})
            await feed.stop()

    async def listen(self, session: Session) -> AsyncGenerator[bytes]:
        """The body of one `/live` answer."""
        listener = Listener()
        feed = self._feeds.get(session.digest)
        if feed is None:
            feed = self._feeds[session.digest] = LiveFeed(self.app, session)
            feed.start()
        else:
            listener.offer({"topics": [EVERYTHING]})  # its page may be older than its listening
        feed.listeners.add(listener)
        try:
            yield b"retry: 1000\n\n"
            while True:
                notice = await _next(listener)
                if notice is None:
                    yield b": still here\n\n"
                    continue
                if "closing" in notice:
                    return
                name = next((word for word in ("bye", "down") if word in notice), "change")
                yield f"event: {name}\ndata: {json.dumps(notice)}\n\n".encode()
                if name == "bye":
                    return
        finally:
            feed.listeners.discard(listener)
            if not feed.listeners and self._feeds.get(session.digest) is feed:
                del self._feeds[session.digest]
                await feed.stop()


async def _next(listener: Listener) -> Notice | None:
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return await listener.notices.get()
    except TimeoutError:
        return None
