"""The first start and every later one: the administrator's account, our own clients and their secrets."""

import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import func, select

from auth_svc import opaque
from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.clients.client import CODE, CREDENTIALS, DEVICE, EXCHANGE, REFRESH, Client
from auth_svc.people import accounts
from auth_svc.people.accounts import NewAccount
from auth_svc.people.passwords import PasswordRejected, Passwords
from auth_svc.protocol.issuer import Issuer
from auth_svc.rights.resources import ADMIN_SCOPES, APP_SCOPES, OPENID
from auth_svc.settings import AuthSettings
from auth_svc.tables import users
from lib_auth.principal import ADMIN, OPERATOR
from lib_events.database import Connection
from lib_events.secret_file import create_secret, write_secret
from lib_events.settings import SettingsRejected

logger = logging.getLogger(__name__)

ADMIN_USERNAME = "admin"
PASSWORD_FILE = "initial-admin-password"  # noqa: S105 - a file name
LOCAL_CLIENT = "evs-local"
GUI_CLIENT = "evs-gui"
APP_CLIENT = "evs-app"
CLI_CLIENT = "evs-cli"
OWN_CLIENTS = frozenset((LOCAL_CLIENT, GUI_CLIENT, APP_CLIENT, CLI_CLIENT))
# evs-local is what a forgotten terminal can do: never decide in somebody's name, never administer.
LOCAL_SCOPES = APP_SCOPES - {"approvals:decide"}


def initial_password_file(settings: AuthSettings) -> Path:
    """Where the administrator finds the generated password until the first sign-in."""
    return settings.data / PASSWORD_FILE


def secret_file(settings: AuthSettings, client_id: str) -> Path:
    """Where a client of ours finds its secret."""
    return settings.secrets / f"{client_id}.secret"


def prepare_admin(settings: AuthSettings, passwords: Passwords) -> NewAccount:
    """Choose the administrator's first password: the given one, or one that is written to a 0600 file."""
    password = settings.admin_password
    if password is None:
        password = create_secret(initial_password_file(settings), lambda: secrets.token_urlsafe(12))
        _announce(initial_password_file(settings), password)
    try:
        return NewAccount(ADMIN_USERNAME, passwords.hash_now(password), roles=frozenset((ADMIN,)))
    except PasswordRejected as error:
        raise SettingsRejected(f"EVS_ADMIN_PASSWORD cannot be used: {error}") from error


def has_users(connection: Connection) -> bool:
    """Whether the first start is over."""
    return bool(connection.scalar(select(func.count()).select_from(users)))


def create_admin(connection: Connection, admin: NewAccount, actor: Actor) -> None:
    """Make the administrator unless somebody was faster."""
    if not has_users(connection):
        accounts.register(connection, admin, actor)


def forget_initial_password(settings: AuthSettings, username: str) -> None:
    """Delete the file once the administrator has signed in."""
    if username == ADMIN_USERNAME and (file := initial_password_file(settings)).exists():
        file.unlink(missing_ok=True)


def prepare_clients(settings: AuthSettings, issuer: Issuer, now: int) -> list[Client]:
    """Return our own clients as this release and the settings want them, with their secrets in place."""
    gui = create_secret(secret_file(settings, GUI_CLIENT), opaque.new_secret)
    app = create_secret(secret_file(settings, APP_CLIENT), opaque.new_secret)
    wanted = [
        Client(
            id=GUI_CLIENT,
            name="event-based-svcs",
            secret_digest=opaque.digest(gui),
            redirect_uris=(f"{settings.gui_url}/callback",),
            post_logout_redirect_uris=(f"{settings.gui_url}/signed-out", f"{settings.gui_url}/"),
            # No offline_access: what the GUI holds ends with the browser's session.
            scopes=(OPENID - {"offline_access"}) | APP_SCOPES | ADMIN_SCOPES,
            consent="never",
            access_token_seconds=settings.gui_access_seconds,
            created_at=now,
            origin="own",
        ),
        Client(
            id=CLI_CLIENT,
            name="evs command line",
            redirect_uris=("http://127.0.0.1/callback", "http://[::1]/callback"),
            grant_types=(CODE, REFRESH, DEVICE),
            scopes=OPENID | APP_SCOPES | ADMIN_SCOPES,
            consent="always",  # any program on the machine can be a public client (RFC 8252 section 8.6)
            created_at=now,
            origin="own",
        ),
        Client(
            id=APP_CLIENT,
            name="AppService",
            secret_digest=opaque.digest(app),
            grant_types=(CREDENTIALS, EXCHANGE),
            # What its runs may do for the people who started them; for itself it holds no role.
            scopes=APP_SCOPES - {"approvals:decide"},
            access_token_seconds=900,
            resource=issuer.resources.app,
            created_at=now,
            origin="own",
        ),
    ]
    return wanted + local_client(settings, issuer, now)


def local_client(settings: AuthSettings, issuer: Issuer, now: int) -> list[Client]:
    """Return the client of this machine's own user, with a new secret; none beyond loopback."""
    path = secret_file(settings, LOCAL_CLIENT)
    if not issuer.is_loopback:
        path.unlink(missing_ok=True)
        return []
    secret = opaque.new_secret()
    write_secret(path, secret)
    return [
        Client(
            id=LOCAL_CLIENT,
            name="this machine",
            secret_digest=opaque.digest(secret),
            grant_types=(CREDENTIALS,),
            scopes=LOCAL_SCOPES,
            roles=frozenset((OPERATOR,)),
            loopback_only=True,
            created_at=now,
            origin="own",
        )
    ]


def put_clients(connection: Connection, wanted: Sequence[Client]) -> None:
    """Transaction function: bring our own clients up to date."""
    for client in wanted:
        clients.put(connection, client)


def _announce(path: Path, password: str) -> None:
    """Show a generated password to a person at a terminal; never to a log."""
    logger.info("user %s: the password is in %s until the first sign-in", ADMIN_USERNAME, os.fspath(path))
    if sys.stderr.isatty():
        sys.stderr.write(f"user {ADMIN_USERNAME}, password {password}\n")
