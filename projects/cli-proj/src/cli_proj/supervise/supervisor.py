"""Keeps a product running: starts its services in order, answers `status` and `down`, stops all in reverse."""

import asyncio
import os
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed, conflict
from cli_proj.supervise.child import Child, ChildFailed, ServicePlan
from cli_proj.supervise.control import Answer, Control, Request
from cli_proj.supervise.data_lock import DataInUse, DataLock
from cli_proj.supervise.databases import with_own_databases
from cli_proj.supervise.local_context import leave_context, remove_context
from cli_proj.supervise.plan import Plan
from cli_proj.supervise.ports import check_ports
from cli_proj.supervise.process_facts import memory_bytes
from lib_events.secret_file import create_secret
from lib_events.settings import SettingsRejected

START_SECONDS = 60.0
LEAST_FREE_BYTES = 50_000_000
# Made before anybody starts, so that the services can start side by side.
SHARED_SECRETS = ("evs-gui", "evs-app")

type Say = Callable[[str], None]


class Supervisor:
    """One running product."""

    def __init__(self, plan: Plan, *, say: Say) -> None:
        self.plan = plan
        self.children: list[Child] = []
        self.stopping = asyncio.Event()
        self.is_ready = False
        self.started_at = time.time()
        self._say = say
        self._all_stopped = asyncio.Event()
        self._control = Control(plan.data, self._answer)

    async def start(self) -> None:
        """Start everything and wait until it is ready; raises `ChildFailed`."""
        await self._control.start()
        for stage in self.plan.stages:
            children = [self._start_child(plan) for plan in stage]
            await asyncio.gather(*(self._report_ready(child) for child in children))
        leave_context(self.plan.settings)
        self.is_ready = True

    async def stop(self) -> None:
        """Stop everything in reverse order."""
        self.stopping.set()
        remove_context(self.plan.data)
        for child in reversed(self.children):
            await child.stop()
        self._all_stopped.set()
        await self._control.stop()

    def ask_to_stop(self) -> None:
        """End the product; asked twice, without waiting for anybody."""
        if self.stopping.is_set():
            for child in self.children:
                child.kill()
        self.stopping.set()

    def child(self, name: str) -> Child:
        """Return the service called `name`."""
        return next(child for child in self.children if child.name == name)

    def _start_child(self, plan: ServicePlan) -> Child:
        log = self.plan.data / "logs" / f"{plan.name}.log"
        child = Child(plan, log=log, announce=self._say)
        self.children.append(child)
        child.start()
        return child

    async def _report_ready(self, child: Child) -> None:
        began = time.monotonic()
        await child.wait_ready(START_SECONDS)
        self._say(f"✓ {child.name:<9} ready after {time.monotonic() - began:.1f} s")

    async def _answer(self, request: Request) -> Answer:
        if request == "down":
            self.stopping.set()
            await self._all_stopped.wait()
            return {"stopped": [child.name for child in self.children]}
        return await self.describe()

    async def describe(self) -> Answer:
        """Everything `evs status` shows."""
        services = await asyncio.gather(*(_describe(child) for child in self.children))
        settings = self.plan.settings
        return {
            "ready": self.is_ready and all(service["status"] == "ready" for service in services),
            "data": str(self.plan.data),
            "pid": os.getpid(),
            "memory_bytes": memory_bytes(os.getpid(), descendants=False),
            "started_at": self.started_at,
            "urls": {"gui": settings.gui_url, "auth": settings.auth_url, "app": settings.app_url},
            "services": services,
        }


def _stop_on_signals(supervisor: Supervisor) -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal stop the product; a second time, at once."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            loop.add_signal_handler(number, supervisor.ask_to_stop)


@asynccontextmanager
async def running_product(plan: Plan, *, say: Say) -> AsyncIterator[Supervisor]:
    """Keep the product of `plan` running inside the block; raises `CommandFailed` when it cannot be started."""
    lock = _prepare(plan)
    try:
        check_ports(plan.ports)
        supervisor = Supervisor(await with_own_databases(plan), say=say)
        _stop_on_signals(supervisor)
        try:
            await _start_or_stop(supervisor)
            yield supervisor
        except ChildFailed as error:
            raise _start_failure(error) from error
        finally:
            await supervisor.stop()
    finally:
        lock.release()


async def _start_or_stop(supervisor: Supervisor) -> None:
    """Start, unless somebody asks to stop meanwhile."""
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(supervisor.stopping.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        else:
            raise CommandFailed("stopped before everything was ready", code=ExitCode.INTERRUPTED)
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


def _prepare(plan: Plan) -> DataLock:
    """Make DATA ready and ours; raises `CommandFailed` that says what to do."""
    data = plan.data
    try:
        plan.settings.prepare_data()
        lock = DataLock(data)
        lock.take()
        for name in SHARED_SECRETS:
            create_secret(plan.settings.secrets / f"{name}.secret", lambda: secrets.token_urlsafe(32))
    except SettingsRejected as error:
        raise CommandFailed(str(error), hint="evs up --data another/folder") from error
    except DataInUse as error:
        raise conflict(
            f"a product runs on {data} already (process {error.pid or 'unknown'})",
            hint="evs status shows it; evs down stops it; evs up --data another/folder starts a second one",
        ) from error
    except OSError as error:
        raise CommandFailed(
            f"the data folder {data} must be writable: {error.strerror}", hint="evs up --data another/folder"
        ) from error
    _check_space(plan, lock)
    return lock


def _check_space(plan: Plan, lock: DataLock) -> None:
    free = shutil.disk_usage(plan.data).free
    if free < LEAST_FREE_BYTES:
        lock.release()
        raise CommandFailed(
            f"{plan.data} must have {LEAST_FREE_BYTES // 1_000_000} MB free, got {free // 1_000_000} MB",
            hint="make space, or evs up --data another/folder",
        )


def _start_failure(error: ChildFailed) -> CommandFailed:
    words = "".join(f"\n    {word}" for word in error.words)
    return CommandFailed(f"{error}{words}", hint=f"its whole log: {error.log}")


async def _describe(child: Child) -> Answer:
    why = await child.plan.probe.ask() if child.state == "ready" else None
    return {
        "service": child.name,
        "status": child.state if why is None else "failed",
        "why": why,
        "url": child.plan.url,
        "pid": child.pid,
        "restarts": child.restarts,
        "started_at": child.started_at or None,
        "memory_bytes": memory_bytes(child.pid) if child.pid else None,
        "log": str(child.log),
    }
