"""`evs demo`: starts a product of its own, plays every scene, shows the summary, and stops or stays."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from cli_proj.api import Service
from cli_proj.context import LOCAL_CLIENT, read_local_context
from cli_proj.demo.browser import Browser
from cli_proj.demo.oauth_scene import register, show_oauth
from cli_proj.demo.screen import Outcome, Screen
from cli_proj.demo.stage import DemoFailed, Person, Stage, make_person
from cli_proj.demo.workflow_scenes import SCENES
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed, conflict
from cli_proj.http_client import new_http
from cli_proj.identity import Program
from cli_proj.messages import BOLD, CYAN, DIM, error_message, message, styled
from cli_proj.supervise.data_lock import DataInUse, DataLock
from cli_proj.supervise.plan import AUTH, Plan, UpOptions, make_plan
from cli_proj.supervise.ports import ANY_PORT, is_free
from cli_proj.supervise.supervisor import Supervisor, running_product
from lib_auth.client import OAuthClient
from lib_auth.oauth_error import OAuthError, ServerUnavailable
from lib_events.settings import LOOPBACK, Settings

FOLDER = Path(".evs") / "demo"
GUI_ACCESS_SECONDS = 2
USUAL_ACCESS_SECONDS = 300
DEFAULT_PORTS = {"gui_port": 8000, "auth_port": 8001, "app_port": 8002}


def demo() -> int:
    """Show the whole product at work: sign-in in its five steps, then one workflow of each type, on real input.

    It starts a product of its own with fresh data in .evs/demo, whatever else runs and is configured.
    On a terminal the product stays up until Ctrl-C; elsewhere it is stopped, and the exit code tells whether all
    went well.
    """
    return asyncio.run(_demonstrate(time.monotonic()))


async def _demonstrate(began: float) -> int:
    screen = Screen()
    _forget_environment()
    admin, person = Person("admin", make_person("admin").password), make_person("mara")
    plan = _plan(admin)
    _fresh_data(plan.data)
    screen.chapter("The product starts")
    async with running_product(plan, say=screen.note) as supervisor:
        outcomes = await _unless_stopped(supervisor, _play(supervisor, screen, admin, person))
        if outcomes is None:
            return ExitCode.INTERRUPTED if supervisor.stopping.is_set() else ExitCode.FAILED
        screen.summary(outcomes)
        _farewell(plan.settings, began)
        if screen.is_terminal:
            await _stay(supervisor, admin, person)
    return ExitCode.OK


async def _play(supervisor: Supervisor, screen: Screen, admin: Person, person: Person) -> list[Outcome] | None:
    """Play every scene; None when one went wrong, which was shown."""
    settings = supervisor.plan.settings
    async with _stage(settings, screen, admin, person) as stage:
        try:
            screen.chapter("Sign-in: the OAuth workflow in five steps")
            await register(stage)
            await show_oauth(stage)
            screen.chapter("Workflows, started in the GUI and watched live")
            return [await scene(stage) for scene in SCENES]
        except (DemoFailed, CommandFailed, LookupError, OAuthError, ServerUnavailable, httpx.HTTPError) as error:
            screen.failure(f"{type(error).__name__}: {error}" if isinstance(error, httpx.HTTPError) else str(error))
            error_message("the demonstration stopped where something went wrong", f"the logs in {settings.data}/logs")
            return None


@asynccontextmanager
async def _stage(settings: Settings, screen: Screen, admin: Person, person: Person) -> AsyncIterator[Stage]:
    context = read_local_context(settings.data)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(new_http(context))
        client = OAuthClient(settings.auth_url, LOCAL_CLIENT, client_secret=context.client_secret, http=http)
        yield Stage(
            gui_url=settings.gui_url,
            auth_url=settings.auth_url,
            app_url=settings.app_url,
            data=settings.data,
            screen=screen,
            app=Service("AppService", settings.app_url, http=http, identity=Program(client)),
            http=http,
            admin=admin,
            person=person,
            browser=await stack.enter_async_context(Browser()),
            admin_browser=await stack.enter_async_context(Browser()),
        )


async def _unless_stopped[T](supervisor: Supervisor, play: Coroutine[object, object, T]) -> T | None:
    """Play to the end, unless somebody asks the product to stop."""
    playing = asyncio.ensure_future(play)
    stopping = asyncio.ensure_future(supervisor.stopping.wait())
    try:
        await asyncio.wait((playing, stopping), return_when=asyncio.FIRST_COMPLETED)
        return playing.result() if playing.done() else None
    finally:
        for task in (playing, stopping):
            task.cancel()
        await asyncio.gather(playing, stopping, return_exceptions=True)


def _forget_environment() -> None:
    """The demonstration is the same whatever is configured: contexts, URLs and databases are for other products."""
    for name in [name for name in os.environ if name.startswith("EVS_") and name != "EVS_DEBUG"]:
        del os.environ[name]


def _plan(admin: Person) -> Plan:
    os.environ["EVS_ADMIN_PASSWORD"] = admin.password
    os.environ["EVS_REGISTRATION"] = "true"
    os.environ["EVS_GUI_ACCESS_SECONDS"] = str(GUI_ACCESS_SECONDS)
    ports = {name: port if is_free(LOOPBACK, port) else ANY_PORT for name, port in DEFAULT_PORTS.items()}
    return make_plan(
        UpOptions(data=FOLDER, gui_port=ports["gui_port"], auth_port=ports["auth_port"], app_port=ports["app_port"])
    )


def _fresh_data(data: Path) -> None:
    """Begin with an empty folder; another demonstration that runs there is left alone."""
    Settings(data=data.parent).prepare_data()
    if data.exists():
        lock = DataLock(data)
        try:
            lock.take()
        except DataInUse as error:
            hint = "evs down --data .evs/demo stops it"
            raise conflict(
                f"a demonstration runs here already (process {error.pid or 'unknown'})", hint=hint
            ) from error
        shutil.rmtree(data)
        lock.release()


def _farewell(settings: Settings, began: float) -> None:
    message(styled(f"\nall went well, in {time.monotonic() - began:.1f} s", BOLD))
    print(f"\nGUI  {styled(settings.gui_url, BOLD, CYAN, stream=sys.stdout)}", flush=True)  # noqa: T201


async def _stay(supervisor: Supervisor, admin: Person, person: Person) -> None:
    """Keep the product up for the person at the terminal, with tokens that live as long as usual."""
    auth = supervisor.child(AUTH)
    print(f"     sign in as {person.username}, password {person.password}")  # noqa: T201
    print(f"     or as      {admin.username}, password {admin.password}")  # noqa: T201
    print(styled(f"\nthe product stays up: EVS_DATA={FOLDER} evs run list   stop: Ctrl-C", DIM, stream=sys.stdout))  # noqa: T201
    message(styled("the AuthService restarts: from now on tokens live as long as usual", DIM))
    await auth.change(EVS_GUI_ACCESS_SECONDS=str(USUAL_ACCESS_SECONDS))
    await supervisor.stopping.wait()
