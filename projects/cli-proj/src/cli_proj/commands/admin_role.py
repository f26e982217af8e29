"""`evs admin role`: what somebody may do who holds a role."""

from cyclopts import App

from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import print_fields

app = App(
    name="role",
    help_epilogue="""Examples:
  evs admin role create clerk --permission orders:refund --include operator
  evs admin role set-permissions clerk orders:refund orders:ship
  evs admin role list
""",
)

COLUMNS = (
    Column("name", lambda role: role["name"]),
    Column("includes", lambda role: role["includes"]),
    Column("permissions", lambda role: role["permissions"]),
    Column("description", lambda role: role["description"], is_wide=True),
)
FIELDS = ("name", "description", "includes", "permissions", "built_in", "created_at")


@app.command(name="list")
async def list_roles(*, options: Options = Options()) -> None:  # noqa: B008
    """List every role, the built-in ones first."""
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/roles", limit=10_000)
        session.output.items(items, COLUMNS, empty="there are no roles")


@app.command
async def show(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Show a role.

    Parameters
    ----------
    name
        Which.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.get(_path(name)), _show)


@app.command
async def create(
    name: str,
    /,
    *,
    description: str = "",
    include: tuple[str, ...] = (),
    permission: tuple[str, ...] = (),
    options: Options = Options(),  # noqa: B008
) -> None:
    """Make a role.

    Parameters
    ----------
    name
        Lower-case letters, digits, - and _.
    description
        What it is for.
    include
        A role that whoever holds this one holds, too. May be repeated.
    permission
        A permission of a resource. May be repeated.
    """
    body = {"name": name, "description": description, "includes": list(include), "permissions": list(permission)}
    async with administering(options) as session:
        session.output.item(await session.auth.post("/v1/admin/roles", body), _show)


@app.command
async def describe(name: str, description: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Say what a role is for.

    Parameters
    ----------
    name
        Which.
    description
        What it is for.
    """
    await _change(name, {"description": description}, options)


@app.command
async def set_includes(name: str, /, *roles: str, options: Options = Options()) -> None:  # noqa: B008
    """Set all the roles that a role includes; what that takes from its holders ends at once.

    Parameters
    ----------
    name
        Which.
    roles
        The roles; none takes all away.
    """
    await _change(name, {"includes": list(roles)}, options)


@app.command
async def set_permissions(name: str, /, *permissions: str, options: Options = Options()) -> None:  # noqa: B008
    """Set all the permissions that a role carries; what that takes from its holders ends at once.

    Parameters
    ----------
    name
        Which.
    permissions
        The permissions; none takes all away.
    """
    await _change(name, {"permissions": list(permissions)}, options)


@app.command
async def delete(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Delete a role that nobody holds.

    Parameters
    ----------
    name
        Which.
    """
    async with administering(options) as session:
        await session.auth.call("DELETE", _path(name))
        message(f"{name} is deleted")


async def _change(name: str, changes: dict[str, object], options: Options) -> None:
    async with administering(options) as session:
        session.output.item(await session.auth.call("PATCH", _path(name), body=changes), _show)


def _path(name: str) -> str:
    return path_of("admin", "roles", name)


def _show(role: Item) -> None:
    print_fields((name, "yes" if role[name] is True else role[name]) for name in FIELDS if role[name] is not False)
