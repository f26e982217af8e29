"""`evs doctor`: looks for what is wrong on this machine, and says what to do about it."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

import httpx

from cli_proj.column import Column
from cli_proj.context import Context, read_local_context, resolve_context
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.http_client import new_http
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.supervise.control import ask_status
from cli_proj.supervise.place import data_folder
from cli_proj.supervise.plan import PORT_OPTIONS, UpOptions, read_settings
from cli_proj.supervise.ports import is_free
from cli_proj.supervise.probe import ANSWER_SECONDS, why_not_ready

LEAST_DISK_BYTES = 1_000_000_000
LEAST_FILES = 1_024
TOLERATED_SKEW_SECONDS = 5.0
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do."""

    check: str
    status: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


COLUMNS = (
    Column("check", lambda finding: finding["check"]),
    Column("status", lambda finding: finding["status"], is_status=True),
    Column("found", lambda finding: finding["found"]),
    Column("what to do", lambda finding: finding["advice"], is_wide=True),
)


async def doctor(*, data: Path | None = None, options: Options = Options()) -> int:  # noqa: B008
    """Check Python, keyring, disk, ports, clock and the services; exit code 1 when something is wrong.

    Parameters
    ----------
    data
        The data folder to look at (default: EVS_DATA, or .evs here or above).
    """
    folder = data_folder(data)

    def find_context() -> Context:
        return resolve_context(options.context) if data is None else read_local_context(folder)

    checks: list[Callable[[], Awaitable[list[Finding]]]] = [
        _python,
        _open_files,
        _keyring,
        lambda: _disk(folder),
        lambda: _data_folder(folder),
        lambda: _ports(folder),
        lambda: _services(find_context),
    ]
    findings = [finding for check in checks for finding in await check()]
    Output(options.output).items([asdict(finding) for finding in findings], COLUMNS, empty="")
    return ExitCode.FAILED if any(finding.status == "failed" for finding in findings) else ExitCode.OK


async def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    return [Finding("Python", "ok", f"{version} at {sys.executable}")]


async def _open_files() -> list[Finding]:
    import resource  # noqa: PLC0415 - POSIX only

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < LEAST_FILES:
        return [Finding("open files", "warning", f"at most {soft}", "ulimit -n 4096 before evs up")]
    return [Finding("open files", "ok", f"at most {soft}")]


async def _keyring() -> list[Finding]:
    import keyring  # noqa: PLC0415 - slow to import

    from lib_auth.token_store import keyring_is_usable  # noqa: PLC0415

    name = type(keyring.get_keyring()).__module__
    if await asyncio.to_thread(keyring_is_usable):
        return [Finding("keyring", "ok", name)]
    advice = "evs auth login --insecure-storage keeps sign-ins in a file only you can read"
    return [Finding("keyring", "warning", "there is none", advice)]


async def _disk(folder: Path) -> list[Finding]:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    found = f"{free // MEGABYTE:,} MB free for {folder}"
    if free < LEAST_DISK_BYTES:
        return [Finding("disk", "failed", found, "make space, or choose another folder with --data")]
    return [Finding("disk", "ok", found)]


async def _data_folder(folder: Path) -> list[Finding]:
    if not folder.exists():
        return [Finding("data folder", "ok", f"{folder} is not there yet: evs up makes it")]
    mode = folder.stat().st_mode & 0o777
    if folder.stat().st_uid != os.getuid():
        return [Finding("data folder", "failed", f"{folder} belongs to somebody else", "choose another with --data")]
    if mode & 0o077:
        return [Finding("data folder", "warning", f"{folder} has mode {mode:o}", f"chmod 700 {folder}")]
    if not os.access(folder, os.W_OK):
        return [Finding("data folder", "failed", f"{folder} cannot be written", "choose another with --data")]
    return [Finding("data folder", "ok", f"{folder}, private")]


async def _ports(folder: Path) -> list[Finding]:
    try:
        status = await ask_status(folder)
    except CommandFailed as failure:
        return [Finding("product", "failed", failure.text, failure.hint or "")]
    if status is not None:
        return [Finding("product", "ok" if status["ready"] else "warning", f"runs on {folder}", "")]
    settings = read_settings(UpOptions(data=folder))
    return [_port(settings.host, getattr(settings, name), option) for name, option in PORT_OPTIONS.items()]


def _port(host: str, port: int, option: str) -> Finding:
    if is_free(host, port):
        return Finding(f"port {port}", "ok", "free")
    return Finding(f"port {port}", "warning", "taken by another program", f"evs up {option} PORT")


async def _services(find_context: Callable[[], Context]) -> list[Finding]:
    try:
        context = find_context()
    except CommandFailed as failure:
        return [Finding("context", "warning", failure.text, failure.hint or "")]
    urls = (("AuthService", context.auth_url), ("AppService", context.app_url), ("GUI", context.gui_url))
    async with new_http(context) as http:
        services = [await _service(http, name, url) for name, url in urls if url]
        return [Finding("context", "ok", f"{context.name}: {context.app_url}"), *services, *await _clock(http, context)]


async def _service(http: httpx.AsyncClient, name: str, url: str) -> Finding:
    try:
        answer = await http.get(f"{url}/readyz", timeout=ANSWER_SECONDS)
    except httpx.HTTPError:
        return Finding(name, "failed", f"does not answer at {url}", "evs status")
    why = why_not_ready(answer.status_code, answer.content)
    return Finding(name, "failed", why, "evs status") if why else Finding(name, "ok", f"ready at {url}")


async def _clock(http: httpx.AsyncClient, context: Context) -> list[Finding]:
    """Compare with the AuthService's clock: tokens are good from and until a time."""
    try:
        answer = await http.get(f"{context.auth_url}/healthz", timeout=ANSWER_SECONDS)
        skew = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (httpx.HTTPError, KeyError, ValueError):
        return []
    if abs(skew) > TOLERATED_SKEW_SECONDS:
        found = f"{skew:+.0f} s off the AuthService"
        return [Finding("clock", "failed", found, "set the clock: timedatectl set-ntp true")]
    return [Finding("clock", "ok", "agrees with the AuthService")]
