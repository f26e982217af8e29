"""Starts the supervisor in the background and waits until it says that everything is ready."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.supervise.child import open_log
from cli_proj.supervise.control import ask_status
from cli_proj.supervise.log_tail import last_words
from cli_proj.supervise.plan import PORT_OPTIONS, Plan, UpOptions
from lib_events.parent_watch import VARIABLE
from lib_events.settings import SettingsRejected

START_SECONDS = 90.0
POLL_SECONDS = 0.1


async def start_detached(plan: Plan, *, options: UpOptions, reload: bool) -> None:
    """Start `evs up` as a process of its own session; raises `CommandFailed` with what it said."""
    try:
        plan.settings.prepare_data()
    except SettingsRejected as error:
        raise CommandFailed(str(error), hint="evs up --data another/folder") from error
    log = plan.data / "logs" / "up.log"
    # A background supervisor has no supervisor of its own to die with.
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    with open_log(log) as output:
        start = output.tell()
        # Not asyncio's: its transport would kill the process when our loop closes.
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own program; starting it takes a moment only
            [sys.executable, "-m", "cli_proj", "up", *_arguments(plan, options, reload=reload)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            await _until_ready(plan.data, process, log, start)
    except asyncio.CancelledError:
        process.terminate()  # with Ctrl-C nobody wants it any more
        raise
    except TimeoutError:
        raise CommandFailed(f"not ready after {START_SECONDS:g} s", hint=f"evs status; its log: {log}") from None


async def _until_ready(data: Path, process: subprocess.Popen[bytes], log: Path, start: int) -> None:
    while True:
        status = await ask_status(data)
        if status is not None and status["ready"] and status["pid"] == process.pid:
            return
        if process.poll() is not None:
            raise _failure(log, start, process.returncode)
        await asyncio.sleep(POLL_SECONDS)


def _failure(log: Path, start: int, code: int) -> CommandFailed:
    """Hand on what the supervisor said in its log."""
    words = last_words(log, since=start, lines=20)
    texts = [word.removeprefix("error: ") for word in words if not word.startswith(("starting on", "  try:", "  ✓"))]
    hints = [word.removeprefix("  try: ") for word in words if word.startswith("  try: ")]
    known = code in ExitCode.__members__.values()
    return CommandFailed(
        "\n".join(texts) or f"the supervisor ended with exit code {code}",
        hint=hints[-1] if hints else f"its log: {log}",
        code=ExitCode(code) if known else ExitCode.FAILED,
    )


def _arguments(plan: Plan, options: UpOptions, *, reload: bool) -> list[str]:
    """The same command line, with every decision already made."""
    arguments = ["--data", str(plan.data)]
    for name, option in PORT_OPTIONS.items():
        arguments += [option, str(getattr(plan.settings, name))]
    arguments += ["--workers", str(options.workers)]
    if options.step_processes is not None:
        arguments += ["--step-processes", str(options.step_processes)]
    for workflow in options.workflows:
        arguments += ["--workflows", workflow]
    return [*arguments, "--reload"] if reload else arguments
