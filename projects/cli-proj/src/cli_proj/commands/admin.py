"""`evs admin`: users. Signs in for administration when that has not been done."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cyclopts import App

from cli_proj import moments
from cli_proj.api import Service, path_of
from cli_proj.column import Column, Item
from cli_proj.context import resolve_context
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import conflict, not_found
from cli_proj.identity import signed_in
from cli_proj.messages import is_interactive, message, printable
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import print_fields, write
from cli_proj.session import acting, signing_in_failures
from cli_proj.signing_in import choose_storage, sign_in_person
from cli_proj.supervise.data_lock import DataInUse, DataLock
from lib_events.settings import is_data_folder

app = App(name="admin")
user = App(name="user", help="People who can sign in.")
app.command(user)

COLUMNS = (
    Column("username", lambda user: user["username"]),
    Column("roles", lambda user: user["roles"]),
    Column("enabled", lambda user: "yes" if user["enabled"] else "no"),
    Column("age", lambda user: moments.age(user["created_at"]), align_right=True),
    Column("e-mail", lambda user: user["email"], is_wide=True),
)


@dataclass(frozen=True, slots=True)
class AdminSession:
    """The admin API, as an administrator."""

    auth: Service
    output: Output


@asynccontextmanager
async def administering(options: Options) -> AsyncIterator[AdminSession]:
    """Open the admin API; a person at a terminal signs in for it if need be."""
    with signing_in_failures():
        context = resolve_context(options.context)
        own_credentials = context.token or (context.client_id and context.data is None)
        if not own_credentials and not signed_in(context, admin=True) and is_interactive():
            message("Administration needs a sign-in of its own.")
            storage = await choose_storage(insecure=False)
            await sign_in_person(context, storage=storage, admin=True)
    async with acting(options, admin=True) as who:
        resource = context.admin_resource
        auth = Service("AuthService", context.auth_url, http=who.http, identity=who.identity, resource=resource)
        yield AdminSession(auth, Output(options.output))


@user.command
async def create(
    username: str,
    /,
    *,
    email: str | None = None,
    role: tuple[str, ...] = (),
    options: Options = Options(),  # noqa: B008
) -> None:
    """Make a user. The password comes from EVS_NEW_PASSWORD, else one is made and printed once.

    Parameters
    ----------
    username
        The name to sign in with.
    email
        Where to reach them.
    role
        A role: member (everyone), operator, admin, or one of your own. May be repeated.
    """
    body: dict[str, object] = {"username": username}
    if email:
        body["email"] = email
    if role:
        body["roles"] = list(role)
    if password := os.environ.get("EVS_NEW_PASSWORD"):
        body["password"] = password
    async with administering(options) as session:
        session.output.item(await session.auth.post("/v1/admin/users", body), _show_password)


@user.command(name="list")
async def list_users(*, limit: int = 1_000, options: Options = Options()) -> None:  # noqa: B008
    """List users by name.

    Parameters
    ----------
    limit
        How many at most.
    """
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/users", limit=limit)
        session.output.items(items, COLUMNS, empty="there are no users")


@user.command
async def reset_password(username: str, /, *, data: Path | None = None, options: Options = Options()) -> int:  # noqa: B008
    """Give a user a new password, from EVS_NEW_PASSWORD or made and printed once; ends what they are signed in to.

    Parameters
    ----------
    username
        Whose.
    data
        Offline: of the product in this data folder, which must not run.
    """
    if data is not None:
        return await asyncio.to_thread(_reset_offline, username, data.absolute())
    password = os.environ.get("EVS_NEW_PASSWORD")
    async with administering(options) as session:
        body = {"password": password} if password else {}
        changed = await session.auth.post(path_of("admin", "users", username, "reset-password"), body)
        session.output.item(changed, _show_password)
    return ExitCode.OK


def _reset_offline(username: str, data: Path) -> int:
    """Let the AuthService's own code do it, while nobody else has the data folder."""
    if not is_data_folder(data):
        raise not_found(f"{data} must be a data folder that evs made, and is not")
    lock = DataLock(data)
    try:
        lock.take()
    except DataInUse as error:
        raise conflict(f"a product runs on {data}", hint=f"evs down --data {data}, or leave --data out") from error
    try:
        command = [sys.executable, "-m", "auth_svc", "reset-password", username, "--data", str(data)]
        return subprocess.run(command, check=False).returncode  # noqa: S603
    finally:
        lock.release()


def _show_password(user: Item) -> None:
    print_fields((name, user[name]) for name in ("username", "email", "roles"))
    if user.get("password"):
        write(f"password  {printable(user['password'])}\n")
        if sys.stderr.isatty():
            message("it is shown only now")
