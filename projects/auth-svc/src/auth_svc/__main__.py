"""`auth-svc`: serve, or do one of the few things that must work without anybody signed in."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auth_svc.settings import SERVICE, AuthSettings
from lib_events import memory
from lib_events.database import DatabaseError, DatabaseInUse
from lib_events.secret_file import SecretFileExposed
from lib_events.settings import SettingsRejected

NOT_FOUND = 3  # as of evs, which hands it on


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with a sentence when something must be changed first."""
    options = _parser().parse_args(arguments)
    try:
        settings = AuthSettings.read(**_given(options))
        options.command(settings, options)
    except (SettingsRejected, SecretFileExposed, DatabaseError) as error:
        sys.exit(f"auth-svc: {error}")


def serve(settings: AuthSettings, _options: argparse.Namespace) -> None:
    """Serve until told to stop."""
    memory.load()
    from auth_svc import serving  # noqa: PLC0415 - the offline commands need no server
    from lib_events.http.server import new_event_loop  # noqa: PLC0415
    from lib_events.parent_watch import watch_parent  # noqa: PLC0415
    from lib_events.telemetry import configure_logging  # noqa: PLC0415

    configure_logging(SERVICE)
    watch_parent()
    asyncio.run(serving.serve(settings), loop_factory=new_event_loop)


def reset_password(settings: AuthSettings, options: argparse.Namespace) -> None:
    """Set a user's password while the service is down."""
    from auth_svc.offline import reset  # noqa: PLC0415
    from auth_svc.people.passwords import PasswordRejected  # noqa: PLC0415

    password = os.environ.get("EVS_NEW_PASSWORD") or _ask_password()
    try:
        shown = asyncio.run(reset(settings, options.username, password))
    except DatabaseInUse as error:
        sys.exit(
            f"auth-svc: {error}\nWhile the service runs, an administrator resets passwords through it:\n"
            f"  POST {settings.auth_url}/v1/admin/users/{options.username}/reset-password\n"
            f"  evs admin user reset-password {options.username}"
        )
    except PasswordRejected as error:
        sys.exit(f"auth-svc: {error}")
    except LookupError as error:
        print(f"auth-svc: {error}", file=sys.stderr)  # noqa: T201 - as sys.exit does, which has no other code for a text
        sys.exit(NOT_FOUND)
    print(shown)  # noqa: T201 - the command's answer


def remove_factors(settings: AuthSettings, options: argparse.Namespace) -> None:
    """Remove a user's second factors and passkeys while the service is down."""
    from auth_svc.offline import drop_factors  # noqa: PLC0415

    try:
        asyncio.run(drop_factors(settings, options.username))
    except DatabaseInUse as error:
        sys.exit(
            f"auth-svc: {error}\nWhile the service runs, an administrator removes them through it:\n"
            f"  DELETE {settings.auth_url}/v1/admin/users/{options.username}/factors"
        )
    except LookupError as error:
        print(f"auth-svc: {error}", file=sys.stderr)  # noqa: T201 - as sys.exit does, which has no other code for a text
        sys.exit(NOT_FOUND)
    print(f"The password alone signs {options.username} in now.")  # noqa: T201 - the command's answer


def issue_local_client(settings: AuthSettings, _options: argparse.Namespace) -> None:
    """Give `evs-local` a new secret while the service is down; serving does so by itself."""
    from auth_svc.offline import issue  # noqa: PLC0415

    print(asyncio.run(issue(settings)))  # noqa: T201 - the command's answer


def verify_audit(settings: AuthSettings, options: argparse.Namespace) -> None:
    """Check the audit's hash chain."""
    from auth_svc import offline  # noqa: PLC0415
    from lib_auth.audit_chain import ChainBroken, Head  # noqa: PLC0415

    try:
        known = Head.parse(options.head) if options.head else None
        print(asyncio.run(offline.verify_audit(settings, known)))  # noqa: T201 - the command's answer
    except (ChainBroken, ValueError) as error:
        sys.exit(f"auth-svc: the audit is broken: {error}" if isinstance(error, ChainBroken) else f"auth-svc: {error}")


def _ask_password() -> str | None:
    """Ask at a terminal; elsewhere a password is generated."""
    if not sys.stdin.isatty():
        return None
    return getpass.getpass("New password (empty: generate one): ") or None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="auth-svc", description="AuthService: OAuth 2.1 and OpenID Connect.")
    parser.set_defaults(command=serve)
    _add_settings(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in (("serve", serve), ("issue-local-client", issue_local_client)):
        sub = commands.add_parser(name, help=(command.__doc__ or "").partition(";")[0])
        sub.set_defaults(command=command)
        _add_settings(sub)
    for name, act in (("reset-password", reset_password), ("remove-factors", remove_factors)):
        of_user = commands.add_parser(name, help=act.__doc__)
        of_user.add_argument("username")
        of_user.set_defaults(command=act)
        _add_settings(of_user)
    verify = commands.add_parser("verify-audit", help="Check the audit's hash chain; exit code 1 when it is broken.")
    verify.add_argument("--head", help="a head written down before: POSITION:HASH, which must still be there")
    verify.set_defaults(command=verify_audit)
    _add_settings(verify)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Flags win over EVS_* in the environment; what is not given is left to it."""
    quiet: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("--data", type=Path, help="data folder (EVS_DATA)", **quiet)
    parser.add_argument("--host", help="address to listen on (EVS_HOST)", **quiet)
    parser.add_argument("--port", type=int, dest="auth_port", help="port (EVS_AUTH_PORT)", **quiet)
    parser.add_argument("--url", dest="auth_url", help="the issuer's public URL (EVS_AUTH_URL)", **quiet)
    parser.add_argument("--gui-url", help="the GUI's URL (EVS_GUI_URL)", **quiet)
    parser.add_argument("--app-url", help="the AppService's URL (EVS_APP_URL)", **quiet)
    parser.add_argument("--nats-url", help="NATS (EVS_NATS_URL)", **quiet)
    parser.add_argument(
        "--database-url", dest="auth_database_url", help="the database (EVS_AUTH_DATABASE_URL)", **quiet
    )


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name not in ("command", "username", "head")}


if __name__ == "__main__":
    main()
