"""What a person reads when everything is ready: where to go, who to be, what to type next."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from cli_proj.messages import BOLD, CYAN, DIM, GREEN, styled
from lib_events.secret_file import SecretFileExposed, read_secret
from lib_events.settings import Settings

PASSWORD_FILE = "initial-admin-password"  # noqa: S105 - a file name


def ready_block(settings: Settings, *, stream: TextIO, stop: str) -> str:
    """Return the text; `stop` says how it ends, and the administrator's first password is for a terminal only."""

    def style(text: str, *styles: int) -> str:
        return styled(text, *styles, stream=stream)

    lines = [
        "",
        style("  everything is ready", BOLD, GREEN),
        "",
        f"  GUI           {style(settings.gui_url, BOLD, CYAN)}",
        f"  AuthService   {settings.auth_url}",
        f"  AppService    {settings.app_url}",
    ]
    lines += _first_password(settings.data, is_terminal=stream.isatty())
    if tunnel := ssh_tunnel(settings):
        lines += ["", "  You are here over SSH. On your own machine:", f"    {style(tunnel, BOLD)}"]
    lines += ["", style(f"  try: {_prefix(settings.data)}evs run start order --watch   stop: {stop}", DIM), ""]
    return "\n".join(lines)


def ssh_tunnel(settings: Settings) -> str | None:
    """The command that brings the three ports to the machine where the browser is."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) != 4:
        return None
    ports = [urlsplit(url).port for url in (settings.gui_url, settings.auth_url, settings.app_url)]
    forwards = " ".join(f"-L {port}:127.0.0.1:{port}" for port in ports)
    user = os.environ.get("USER", "")
    return f"ssh {forwards} {user + '@' if user else ''}{connection[2]}"


def _first_password(data: Path, *, is_terminal: bool) -> list[str]:
    path = data / PASSWORD_FILE
    with suppress(FileNotFoundError, SecretFileExposed):
        password = read_secret(path)
        shown = password if is_terminal else f"in {path}"
        return ["", f"  sign in as    admin, password {shown}"]
    return []


def _prefix(data: Path) -> str:
    """What a command needs in front of it to find a product that is not in `.evs` here or above."""
    here = Path.cwd()
    if any(data == folder / ".evs" for folder in (here, *here.parents)):
        return ""
    return f"EVS_DATA={os.path.relpath(data)} "
