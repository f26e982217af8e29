"""`new-service`: serves until it is told to stop."""

import argparse
import logging
import sys
from collections.abc import Sequence

import uvicorn

from lib_events.http.server import listen, url_at
from lib_events.settings import SettingsRejected
from lib_events.telemetry import configure_logging

from .api import NAME, create_app
from .settings import ServiceSettings

PORT = "EVS_NEW_SERVICE_PORT"
SECRET = "EVS_NEW_SERVICE_CLIENT_SECRET"  # noqa: S105 - the variable's name

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with a sentence when something must be changed first."""
    options = vars(_parser().parse_args(arguments))
    configure_logging(NAME)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question to the AuthService is noise
    try:
        serve(ServiceSettings.read(**options))
    except SettingsRejected as error:
        sys.exit(f"{NAME}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def serve(settings: ServiceSettings) -> None:
    """Serve until a signal says stop; raises `SettingsRejected` where the port cannot be had."""
    with listen(settings.host, settings.new_service_port, variable=PORT) as listener:
        url = url_at(settings.new_service_url, listener)
        if not settings.new_service_client_secret:
            logger.warning("%s is not set: tokens are refused; the README says how to get it", SECRET)
        app = create_app(settings.model_copy(update={"new_service_url": url}))
        logger.info("%s serves at %s", NAME, url)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=NAME, description="Greets whoever may be greeted.")
    quiet = argparse.SUPPRESS  # what is not given is left to the environment
    parser.add_argument("--host", default=quiet, help="address to listen on (EVS_HOST)")
    parser.add_argument(
        "--port",
        default=quiet,
        type=int,
        dest="new_service_port",
        help=f"port ({PORT})",
    )
    return parser


if __name__ == "__main__":
    main()
