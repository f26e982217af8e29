"""Runs the GUI: `python -m gui_proj`, or `gui-proj`."""

import argparse
import asyncio
import logging
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gui_proj.settings import CLIENT_ID, GuiSettings
from lib_events import memory
from lib_events.http.server import HttpServer, call_on_stop_signals, listen, new_event_loop, running_server
from lib_events.parent_watch import watch_parent
from lib_events.secret_file import SecretFileExposed, read_secret
from lib_events.settings import SettingsRejected
from lib_events.telemetry import configure_logging
from lib_events.tracing.environment import find_traces

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

USAGE = 2
DRAIN_SECONDS = 3


def main() -> None:
    """Reads the settings and serves until told to stop."""
    memory.load()
    watch_parent()
    configure_logging("gui-proj")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question to the AppService is noise
    try:
        settings = read_settings(sys.argv[1:])
        settings.check_address()
        settings.prepare_data()
        secret = read_secret(settings.secrets / f"{CLIENT_ID}.secret")
        traces = find_traces("gui-proj")
        listener = listen(settings.host, settings.gui_port, variable="EVS_GUI_PORT")
    except FileNotFoundError as error:
        fail(f"{error.filename} must hold the secret of the client {CLIENT_ID}; start the AuthService first")
    except (SettingsRejected, SecretFileExposed, OSError) as error:
        fail(str(error))
    asyncio.run(serve(settings, secret, listener, traces), loop_factory=new_event_loop)


async def serve(settings: GuiSettings, secret: str, listener: socket.socket, traces: "Traces | None") -> None:
    """Serves until a signal says stop; open streams are ended, for their browsers never leave."""
    from gui_proj.app import create_app, live_feeds  # noqa: PLC0415 - what is loaded from here on stays

    app = create_app(settings, secret, traces=traces)

    async def end_streams() -> None:
        await live_feeds(app).close()

    server = HttpServer(app, drain_seconds=DRAIN_SECONDS, on_stop=end_streams, lifespan="on")
    async with running_server(server, listener):
        call_on_stop_signals(server.stop)
        memory.settle()
        await server.ended()
    if traces is not None:
        await asyncio.to_thread(traces.close)


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
    return GuiSettings.read(**given)


def fail(words: str) -> NoReturn:
    sys.stderr.write(f"gui-proj: {words}\n")
    raise SystemExit(USAGE)


if __name__ == "__main__":
    main()
