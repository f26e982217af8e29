"""Runs the GUI: `python -m gui_proj`, or `gui-proj`."""

import argparse
import logging
import socket
import sys
from pathlib import Path
from typing import NoReturn

import uvicorn

from gui_proj.app import create_app, live_feeds
from gui_proj.settings import CLIENT_ID, GuiSettings
from gui_proj.web_guard import WebGuard
from lib_events.parent_watch import watch_parent
from lib_events.secret_file import SecretFileExposed, read_secret
from lib_events.settings import SettingsRejected
from lib_events.telemetry import configure_logging

USAGE = 2


def main() -> None:
    """Reads the settings and serves until told to stop."""
    watch_parent()
    configure_logging("gui-proj")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question to the AppService is noise
    try:
        settings = read_settings(sys.argv[1:])
        settings.check_address()
        settings.prepare_data()
        secret = read_secret(settings.secrets / f"{CLIENT_ID}.secret")
    except FileNotFoundError as error:
        fail(f"{error.filename} must hold the secret of the client {CLIENT_ID}; start the AuthService first")
    except (SettingsRejected, SecretFileExposed, OSError) as error:
        fail(str(error))
    listener = listen(settings)
    guarded = create_app(settings, secret)
    config = uvicorn.Config(
        guarded,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    Server(config, guarded).run(sockets=[listener])


def listen(settings: GuiSettings) -> socket.socket:
    """Our port, or an end that says which option to change."""
    try:
        return socket.create_server((settings.host, settings.gui_port), backlog=512)
    except OSError as error:
        reason = f"cannot listen on {settings.host} port {settings.gui_port}: {error.strerror}"
        fail(f"{reason}; choose another port with --port or EVS_GUI_PORT")


class Server(uvicorn.Server):
    """A server that ends its own streams first: otherwise it would wait for browsers that never leave."""

    def __init__(self, config: uvicorn.Config, guarded: WebGuard) -> None:
        super().__init__(config)
        self._guarded = guarded

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await live_feeds(self._guarded).close()
        await super().shutdown(sockets)


def read_settings(arguments: list[str]) -> GuiSettings:
    """Flags win over the environment, the environment over the settings file."""
    parser = argparse.ArgumentParser(prog="gui-proj", description="The web application people work in.")
    parser.add_argument("--data", type=Path, help="folder with the secrets and the sessions (EVS_DATA)")
    parser.add_argument("--host", help="address to listen on (EVS_HOST)")
    parser.add_argument("--port", dest="gui_port", type=int, help="port to listen on (EVS_GUI_PORT)")
    parser.add_argument("--url", dest="gui_url", help="the address people use (EVS_GUI_URL)")
    parser.add_argument("--auth-url", help="address of the AuthService (EVS_AUTH_URL)")
    parser.add_argument("--app-url", help="address of the AppService (EVS_APP_URL)")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return GuiSettings(**given)


def fail(words: str) -> NoReturn:
    sys.stderr.write(f"gui-proj: {words}\n")
    raise SystemExit(USAGE)


if __name__ == "__main__":
    main()
