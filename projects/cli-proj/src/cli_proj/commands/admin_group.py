"""`evs admin group`: people who may do the same."""

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.failure import usage
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import print_fields

app = App(
    name="group",
    help_epilogue="""Examples:
  evs admin group create Support --role operator
  evs admin group add Support grace ada
  evs admin group members Support -o json
""",
)

COLUMNS = (
    Column("name", lambda group: group["name"]),
    Column("members", lambda group: group["members"], align_right=True),
    Column("roles", lambda group: group["roles"]),
    Column("age", lambda group: moments.age(group["created_at"]), align_right=True, is_optional=True),
    Column("description", lambda group: group["description"], is_wide=True),
)
MEMBER_COLUMNS = (
    Column("username", lambda user: user["username"]),
    Column("roles", lambda user: user["effective_roles"]),
    Column("e-mail", lambda user: user["email"], is_wide=True),
)
FIELDS = ("id", "name", "description", "roles", "members", "created_at")


@app.command(name="list")
async def list_groups(*, limit: int = 1_000, options: Options = Options()) -> None:  # noqa: B008
    """List groups by name.

    Parameters
    ----------
    limit
        How many at most.
    """
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/groups", limit=limit)
        session.output.items(items, COLUMNS, empty="there are no groups")


@app.command
async def show(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Show a group.

    Parameters
    ----------
    name
        Which, by name or id.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.get(_path(name)), _show)


@app.command
async def create(
    name: str,
    /,
    *,
    description: str = "",
    role: tuple[str, ...] = (),
    options: Options = Options(),  # noqa: B008
) -> None:
    """Make a group.

    Parameters
    ----------
    name
        What it is called.
    description
        What it is for.
    role
        A role that every member holds. May be repeated.
    """
    async with administering(options) as session:
        body = {"name": name, "description": description, "roles": list(role)}
        session.output.item(await session.auth.post("/v1/admin/groups", body), _show)


@app.command
async def edit(
    name: str,
    /,
    *,
    rename: str | None = None,
    description: str | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Change what a group is called or for.

    Parameters
    ----------
    name
        Which, by name or id.
    rename
        What it is called from now on.
    description
        What it is for.
    """
    given = {"name": rename, "description": description}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise usage("what is to change?", hint="evs admin group edit NAME --rename NEW --description TEXT")
    async with administering(options) as session:
        session.output.item(await session.auth.call("PATCH", _path(name), body=changes), _show)


@app.command
async def set_roles(name: str, /, *roles: str, options: Options = Options()) -> None:  # noqa: B008
    """Set all the roles that members hold by a group; what is taken away ends at once.

    Parameters
    ----------
    name
        Which, by name or id.
    roles
        The roles; none takes all away.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.call("PATCH", _path(name), body={"roles": list(roles)}), _show)


@app.command
async def delete(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Delete a group; its members stay, without what only it gave them.

    Parameters
    ----------
    name
        Which, by name or id.
    """
    async with administering(options) as session:
        await session.auth.call("DELETE", _path(name))
        message(f"{name} is deleted")


@app.command
async def members(name: str, /, *, limit: int = 1_000, options: Options = Options()) -> None:  # noqa: B008
    """List who is in a group.

    Parameters
    ----------
    name
        Which, by name or id.
    limit
        How many at most.
    """
    async with administering(options) as session:
        items = await session.auth.pages(_path(name, "members"), limit=limit)
        session.output.items(items, MEMBER_COLUMNS, empty=f"nobody is in {name}")


@app.command
async def add(name: str, /, *usernames: str, options: Options = Options()) -> None:  # noqa: B008
    """Put users into a group.

    Parameters
    ----------
    name
        Which group, by name or id.
    usernames
        Who.
    """
    await _each_member("PUT", name, usernames, options)


@app.command
async def remove(name: str, /, *usernames: str, options: Options = Options()) -> None:  # noqa: B008
    """Take users out of a group; what only it gave them ends at once.

    Parameters
    ----------
    name
        Which group, by name or id.
    usernames
        Who.
    """
    await _each_member("DELETE", name, usernames, options)


async def _each_member(method: str, name: str, usernames: tuple[str, ...], options: Options) -> None:
    if not usernames:
        raise usage("who?", hint=f"evs admin group {'add' if method == 'PUT' else 'remove'} {name} USERNAME")
    async with administering(options) as session:
        for username in usernames:
            await session.auth.call(method, _path(name, "members", username))
            message(f"{username} is {'in' if method == 'PUT' else 'no more in'} {name}")


def _path(name: str, *rest: str) -> str:
    return path_of("admin", "groups", name, *rest)


def _show(group: Item) -> None:
    print_fields((name, group[name]) for name in FIELDS)
