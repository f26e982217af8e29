"""`evs up`: everything on this machine, supervised, until Ctrl-C."""

import asyncio
import os
import sys
from pathlib import Path

from cli_proj.exit_codes import ExitCode
from cli_proj.messages import DIM, message, styled
from cli_proj.supervise.detach import start_detached
from cli_proj.supervise.plan import Plan, UpOptions, make_plan
from cli_proj.supervise.ready_block import ready_block
from cli_proj.supervise.reload import Reload
from cli_proj.supervise.supervisor import running_product


def up(
    *,
    data: Path | None = None,
    gui_port: int | None = None,
    auth_port: int | None = None,
    app_port: int | None = None,
    workers: int = 0,
    step_processes: int | None = None,
    workflows: tuple[str, ...] = (),
    reload: bool = False,
    detach: bool = False,
) -> int:
    """Start NATS, the AuthService, the AppService and the GUI; stop them all with Ctrl-C.

    Parameters
    ----------
    data
        Folder of everything that is kept (default: .evs, or EVS_DATA).
    gui_port
        Port of the GUI (default: 8000).
    auth_port
        Port of the AuthService (default: 8001).
    app_port
        Port of the AppService (default: 8002).
    workers
        Additional engine processes; they need PostgreSQL (EVS_DATABASE_URL).
    step_processes
        Processes for steps that are declared process=True.
    workflows
        A file or module with your own workflows; may be repeated.
    reload
        Restart the AppService when a file of your workflows changes.
    detach
        Return when everything is ready, and leave it running; stop it with: evs down.
    """
    options = UpOptions(
        data=data,
        gui_port=gui_port,
        auth_port=auth_port,
        app_port=app_port,
        workers=workers,
        step_processes=step_processes,
        workflows=workflows,
    )
    plan = make_plan(options)
    if detach:
        asyncio.run(start_detached(plan, reload=reload, options=options))
        stop = f"evs down{_data_option(plan)}"
        print(ready_block(plan.settings, stream=sys.stdout, stop=stop))  # noqa: T201 - what was asked for
        message(f"it runs on in the background; stop it with: {stop}")
        return ExitCode.OK
    return asyncio.run(_keep_up(plan, reload=reload))


async def _keep_up(plan: Plan, *, reload: bool) -> int:
    message(styled(f"starting on {plan.data}", DIM))
    async with running_product(plan, say=_say) as supervisor:
        print(ready_block(plan.settings, stream=sys.stdout, stop="Ctrl-C"), flush=True)  # noqa: T201 - what was asked for
        watcher = Reload(supervisor, say=_say)
        if reload:
            watcher.start()
        try:
            await supervisor.stopping.wait()
        finally:
            await watcher.stop()
        message("stopping")
    message("stopped")
    return ExitCode.OK


def _say(text: str) -> None:
    message(f"  {text}")


def _data_option(plan: Plan) -> str:
    shown = os.path.relpath(plan.data)
    return "" if shown == ".evs" else f" --data {shown}"
