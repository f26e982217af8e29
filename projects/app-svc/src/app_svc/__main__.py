"""`app-svc [serve|worker]`: serve the REST API with an engine, or run a further engine process."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app_svc.settings import SERVICE, AppSettings
from lib_events import memory
from lib_events.database import DatabaseError
from lib_events.parent_watch import watch_parent
from lib_events.settings import SettingsRejected
from lib_events.telemetry import configure_logging

COMMANDS = {
    "serve": "the REST API, the relay, the importer and one engine (default)",
    "worker": "one more engine process; needs PostgreSQL",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with a sentence when something must be changed first."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command", "serve")
    configure_logging(SERVICE)
    watch_parent()
    memory.load()
    from app_svc import serving  # noqa: PLC0415 - --help needs neither engine nor server
    from app_svc.workflow_loading import WorkflowsNotLoaded  # noqa: PLC0415
    from lib_events.http.server import new_event_loop  # noqa: PLC0415

    try:
        settings = AppSettings.read(**options)
        run = serving.serve if command == "serve" else serving.work
        asyncio.run(run(settings), loop_factory=new_event_loop)
    except (SettingsRejected, DatabaseError, WorkflowsNotLoaded) as error:
        sys.exit(f"app-svc: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="app-svc", description="AppService: runs workflows behind a REST API.")
    _add_settings(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text)
        sub.set_defaults(command=name)
        _add_settings(sub)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Flags win over EVS_* in the environment; what is not given is left to it."""
    quiet: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("--data", type=Path, help="data folder (EVS_DATA)", **quiet)
    parser.add_argument("--host", help="address to listen on (EVS_HOST)", **quiet)
    parser.add_argument("--port", type=int, dest="app_port", help="port (EVS_APP_PORT)", **quiet)
    parser.add_argument("--url", dest="app_url", help="our public URL, the audience of tokens (EVS_APP_URL)", **quiet)
    parser.add_argument("--auth-url", help="the AuthService's URL, the issuer (EVS_AUTH_URL)", **quiet)
    parser.add_argument("--nats-url", help="NATS (EVS_NATS_URL)", **quiet)
    parser.add_argument("--database-url", dest="app_database_url", help="the database (EVS_APP_DATABASE_URL)", **quiet)
    parser.add_argument(
        "--workflows",
        action="append",
        metavar="FILE_OR_MODULE",
        help="workflows of your own; may be repeated (EVS_WORKFLOWS)",
        **quiet,
    )


if __name__ == "__main__":
    main()
