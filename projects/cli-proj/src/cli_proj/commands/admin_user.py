"""`evs admin user`: the people who can sign in."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Literal

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import usage
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.printing import print_fields, write
from cli_proj.supervise.offline_reset import reset_offline

app = App(
    name="user",
    help_epilogue="""Examples:
  evs admin user create grace --email grace@example.org --role operator
  evs admin user list --query navy --state enabled -o json
  evs admin user set-roles grace operator auditor
  evs admin user sessions grace --end-all
""",
)

COLUMNS = (
    Column("username", lambda user: user["username"]),
    Column("roles", lambda user: user["effective_roles"]),
    Column("groups", lambda user: user["groups"], is_optional=True),
    Column("enabled", lambda user: "yes" if user["enabled"] else "no"),
    Column("age", lambda user: moments.age(user["created_at"]), align_right=True),
    Column("e-mail", lambda user: user["email"], is_wide=True),
)
SESSION_COLUMNS = (
    Column("id", lambda session: session["id"]),
    Column("age", lambda session: moments.age(session["started_at"]), align_right=True),
    Column("address", lambda session: session["address"]),
    Column("browser", lambda session: session["user_agent"], is_wide=True),
)
CONSENT_COLUMNS = (
    Column("client", lambda consent: consent["client"]),
    Column("scopes", lambda consent: consent["scopes"], is_wide=True),
)
DELEGATION_COLUMNS = (
    Column("id", lambda delegation: delegation["id"]),
    Column("client", lambda delegation: delegation["client"]),
    Column("purpose", lambda delegation: delegation["purpose"]),
    Column("scopes", lambda delegation: delegation["scopes"]),
    Column("until", lambda delegation: delegation["expires_at"]),
    Column("resources", lambda delegation: delegation["resources"], is_wide=True),
)
FIELDS = ("id", "username", "email", "roles", "groups", "effective_roles", "enabled", "created_at")


@app.command(name="list")
async def list_users(
    *,
    query: str | None = None,
    role: str | None = None,
    group: str | None = None,
    state: Literal["enabled", "disabled"] | None = None,
    limit: int = 1_000,
    options: Options = Options(),  # noqa: B008
) -> None:
    """List users by name.

    Parameters
    ----------
    query
        Only those with this in their name or e-mail address.
    role
        Only those who hold this role, through a group or another role, too.
    group
        Only those in this group.
    state
        Only those who may sign in, or may not.
    limit
        How many at most.
    """
    async with administering(options) as session:
        wanted = {"q": query, "role": role, "group": group, "state": state}
        items = await session.auth.pages("/v1/admin/users", limit=limit, **wanted)
        session.output.items(items, COLUMNS, empty="there are no such users")


@app.command
async def show(username: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Show a user.

    Parameters
    ----------
    username
        Who, by name or id.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.get(_path(username)), _show)


@app.command
async def edit(
    username: str,
    /,
    *,
    rename: str | None = None,
    email: str | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Change what a user is called, or where to reach them.

    Parameters
    ----------
    username
        Who, by name or id.
    rename
        The name to sign in with from now on.
    email
        Where to reach them; "" for nowhere.
    """
    changes: dict[str, object] = {}
    if rename is not None:
        changes["username"] = rename
    if email is not None:
        changes["email"] = email or None
    if not changes:
        raise usage("what is to change?", hint="evs admin user edit NAME --rename NEW --email ADDRESS")
    async with administering(options) as session:
        session.output.item(await session.auth.call("PATCH", _path(username), body=changes), _show)


@app.command
async def set_roles(username: str, /, *roles: str, options: Options = Options()) -> None:  # noqa: B008
    """Set all the roles a user holds by themselves; what is taken away ends at once.

    Parameters
    ----------
    username
        Who, by name or id.
    roles
        The roles; member comes by itself.
    """
    async with administering(options) as session:
        path = _path(username, "roles")
        session.output.item(await session.auth.call("PUT", path, body={"roles": list(roles)}), _show)


@app.command
async def disable(username: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Stop a user from signing in, and end what they are signed in to.

    Parameters
    ----------
    username
        Who, by name or id.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.post(_path(username, "disable")), _show)


@app.command
async def enable(username: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Let a disabled user sign in again.

    Parameters
    ----------
    username
        Who, by name or id.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.post(_path(username, "enable")), _show)


@app.command
async def delete(username: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Delete a user and everything that is theirs; there is no way back.

    Parameters
    ----------
    username
        Who, by name or id.
    """
    async with administering(options) as session:
        await session.auth.call("DELETE", _path(username))
        message(f"{username} is deleted")


@app.command
async def sessions(
    username: str,
    /,
    *,
    end: str | None = None,
    end_all: bool = False,
    options: Options = Options(),  # noqa: B008
) -> None:
    """List where a user is signed in with a browser, or end that.

    Parameters
    ----------
    username
        Who, by name or id.
    end
        End the session with this id.
    end_all
        Sign the user out everywhere.
    """
    async with administering(options) as session:
        path = _path(username, "sessions")
        if end is not None or end_all:
            await session.auth.call("DELETE", path if end_all else _path(username, "sessions", end or ""))
            message(f"{username} is signed out" + ("" if end_all else " there"))
            return
        items = await session.auth.pages(path, limit=1_000)
        session.output.items(items, SESSION_COLUMNS, empty=f"{username} is signed in with no browser")


@app.command
async def consents(username: str, /, *, withdraw: str | None = None, options: Options = Options()) -> None:  # noqa: B008
    """List what a user has allowed which client, or withdraw it.

    Parameters
    ----------
    username
        Who, by name or id.
    withdraw
        The client that may act for the user no more.
    """
    async with administering(options) as session:
        if withdraw is not None:
            await session.auth.call("DELETE", _path(username, "consents", withdraw))
            message(f"{withdraw} may act for {username} no more")
            return
        items = await session.auth.pages(_path(username, "consents"), limit=1_000)
        session.output.items(items, CONSENT_COLUMNS, empty=f"{username} has allowed nothing")


@app.command
async def delegations(username: str, /, *, end: str | None = None, options: Options = Options()) -> None:  # noqa: B008
    """List what clients may do for a user while they are away (their runs), or end it.

    Parameters
    ----------
    username
        Who, by name or id.
    end
        End the delegation with this id.
    """
    async with administering(options) as session:
        if end is not None:
            await session.auth.call("DELETE", _path(username, "delegations", end))
            message(f"{end} is ended")
            return
        items = await session.auth.pages(_path(username, "delegations"), limit=1_000)
        session.output.items(items, DELEGATION_COLUMNS, empty=f"nothing acts for {username}")


@app.command
async def remove_factors(username: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Remove a user's authenticator app, passkeys and recovery codes, which they lost; the password alone will do.

    Parameters
    ----------
    username
        Who, by name or id.
    """
    async with administering(options) as session:
        await session.auth.call("DELETE", _path(username, "factors"))
        message(f"{username} signs in with the password alone")


@app.command
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


@app.command
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
        return await asyncio.to_thread(reset_offline, username, data.absolute())
    password = os.environ.get("EVS_NEW_PASSWORD")
    async with administering(options) as session:
        body = {"password": password} if password else {}
        changed = await session.auth.post(_path(username, "reset-password"), body)
        session.output.item(changed, _show_password)
    return ExitCode.OK


def _show_password(user: Item) -> None:
    print_fields((name, user[name]) for name in ("username", "email", "roles"))
    if user.get("password"):
        write(f"password  {printable(user['password'])}\n")
        if sys.stderr.isatty():
            message("it is shown only now")


def _path(username: str, *rest: str) -> str:
    return path_of("admin", "users", username, *rest)


def _show(user: Item) -> None:
    print_fields((name, "yes" if user[name] is True else user[name]) for name in FIELDS)
