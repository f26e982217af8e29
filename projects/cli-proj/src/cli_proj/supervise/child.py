"""One service as a process: started, watched, started again when it ends, stopped."""

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from cli_proj.supervise.log_tail import last_words
from cli_proj.supervise.probe import Probe
from lib_events.lifecycle import Loop

FIRST_RESTART_SECONDS = 0.2
LAST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 20.0  # whoever ran this long has earned a quick restart
STOP_SECONDS = 15.0
POLL_SECONDS = 0.03
LOG_BYTES = 10_000_000
REASON_LINES = 2

type State = Literal["starting", "ready", "restarting", "stopped"]
type Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What to start, and how to see that it is ready."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    probe: Probe
    url: str | None = None


class ChildFailed(Exception):
    """A service ended before it was ready, or was not ready in time."""

    def __init__(self, name: str, reason: str, log: Path, words: list[str]) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.reason = reason
        self.log = log
        self.words = words


class Child(Loop):
    """Keeps one service running; it is told to end before we end, and dies with us (`lib_events.parent_watch`)."""

    def __init__(self, plan: ServicePlan, *, log: Path, announce: Announce) -> None:
        super().__init__(name=plan.name)
        self.plan = plan
        self.log = log
        self.state: State = "stopped"
        self.restarts = 0
        self.started_at = 0.0
        self._announce = announce
        self._process: Process | None = None
        self._was_ready = False
        self._log_start = 0
        self._ended: asyncio.Future[str] | None = None
        self._stopping = False
        self._stop_now = False
        self._restart_asked = False

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self) -> None:
        """Start the process, again and again, until stopped."""
        delay = FIRST_RESTART_SECONDS
        try:
            while not self._stopping:
                began = time.monotonic()
                reason = await self._live_once()
                if self._stopping or not self._was_ready:
                    return
                if time.monotonic() - began > STEADY_SECONDS:
                    delay = FIRST_RESTART_SECONDS
                self.state = "restarting"
                self.restarts += 1
                if self._restart_asked:
                    self._restart_asked = False
                    continue
                again = f"starting it again in {delay:g} s (its log: {self.log})"
                self._announce(f"{self.name} {reason}; {again}{self._reason_given()}")
                await self.pause(delay)
                delay = min(delay * 2, LAST_RESTART_SECONDS)
        finally:
            await self._end()
            self.state = "stopped"

    async def wait_ready(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound whose end has its own error
        """Wait until the service is ready; raises `ChildFailed` with the end of its log."""
        deadline = time.monotonic() + timeout
        why = await self.plan.probe.ask() if self.pid else "it has not started"
        while why is not None or self.pid is None:
            if self._ended is not None and self._ended.done():
                raise self._failed(self._ended.result())
            if time.monotonic() > deadline:
                raise self._failed(f"is not ready after {timeout:g} s: {why}")
            await asyncio.sleep(POLL_SECONDS)
            why = await self.plan.probe.ask() if self.pid else "it has not started"
        self._was_ready = True
        self.state = "ready"

    async def stop(self) -> None:
        """End the process, first politely; it is not started again."""
        self._stopping = True
        self.wake()
        await self._end()
        await super().stop()

    async def restart(self) -> None:
        """End the process, so that `run` starts it again; whoever asks says why."""
        if self.pid is None:
            self.wake()  # it rests before its next start
        else:
            self._restart_asked = True
            await self._end()

    async def change(self, **environment: str) -> None:
        """Restart the service with other settings."""
        self.plan = replace(self.plan, environment=dict(self.plan.environment) | environment)
        await self.restart()

    def kill(self) -> None:
        """Do not wait for a clean end."""
        self._stop_now = True
        self._signal(signal.SIGKILL)

    async def _live_once(self) -> str:
        """Run the process once; returns how it ended."""
        self.state = "starting"
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._process = process = await self._spawn()
        except OSError as error:
            reason = f"cannot be started: {error.strerror} ({error.filename})"
        else:
            reason = await self._watch(process)
        self._ended.set_result(reason)
        return reason

    async def _spawn(self) -> Process:
        self.plan.probe.forget()
        with open_log(self.log) as log:
            self._log_start = log.tell()
            return await asyncio.create_subprocess_exec(
                *self.plan.command,
                env=dict(self.plan.environment),
                stdin=asyncio.subprocess.PIPE,  # closes with us, which the service watches
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for us: we stop the services one by one
            )

    async def _watch(self, process: Process) -> str:
        """Wait for the end of `process`; after a restart, say when it is ready again."""
        self.started_at = time.time()
        watch = asyncio.create_task(self._become_ready()) if self._was_ready else None
        try:
            return how_it_ended(await process.wait())
        finally:
            if watch is not None:
                watch.cancel()

    async def _become_ready(self) -> None:
        while await self.plan.probe.ask() is not None:  # noqa: ASYNC110 - another process has no event to set
            await asyncio.sleep(POLL_SECONDS * 3)
        self.state = "ready"
        self._announce(f"{self.name} is ready again")

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGKILL if self._stop_now else signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        if process.returncode is None:
            self._signal(signal.SIGKILL)
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _reason_given(self) -> str:
        """What a process said that gave up; whoever was killed had no time to."""
        if self._process is None or (self._process.returncode or 0) <= 0:
            return ""
        return "".join(f"\n    {word}" for word in last_words(self.log, since=self._log_start, lines=REASON_LINES))

    def _failed(self, reason: str) -> ChildFailed:
        return ChildFailed(self.name, reason, self.log, last_words(self.log, since=self._log_start))


def how_it_ended(code: int) -> str:
    """Say an exit status in words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def open_log(path: Path) -> IO[bytes]:
    """Open a log to append to, private; a long one is put aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
