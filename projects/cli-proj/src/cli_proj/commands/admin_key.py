"""`evs admin key`: the keys that sign tokens."""

from typing import Literal

from cyclopts import App

from cli_proj.api import path_of
from cli_proj.column import Column
from cli_proj.commands.admin import AdminSession, administering
from cli_proj.messages import message
from cli_proj.options import Options

app = App(
    name="key",
    help_epilogue="""Examples:
  evs admin key list
  evs admin key rotate
  evs admin key revoke KEY
""",
)

COLUMNS = (
    Column("id", lambda key: key["id"]),
    Column("algorithm", lambda key: key["algorithm"]),
    Column("state", lambda key: key["state"]),
    Column("active from", lambda key: key["active_from"]),
    Column("created", lambda key: key["created_at"], is_wide=True),
)


@app.command(name="list")
async def list_keys(*, options: Options = Options()) -> None:  # noqa: B008
    """List the keys, newest first."""
    async with administering(options) as session:
        _show(session, await session.auth.get("/v1/admin/keys"))


@app.command
async def rotate(
    *,
    algorithm: Literal["ES256", "RS256"] = "ES256",
    options: Options = Options(),  # noqa: B008
) -> None:
    """Publish the next key; it takes over in an hour, when everybody has seen it.

    Parameters
    ----------
    algorithm
        Of which kind.
    """
    async with administering(options) as session:
        _show(session, await session.auth.post("/v1/admin/keys:rotate", {"algorithm": algorithm}))
        message("the new key signs in an hour; the old one stays until its last token has expired")


@app.command
async def revoke(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Refuse at once whatever a key has signed, because somebody else has it; people sign in anew.

    Parameters
    ----------
    id
        Which.
    """
    async with administering(options) as session:
        _show(session, await session.auth.post(path_of("admin", "keys", id, "revoke")))


def _show(session: AdminSession, page: dict[str, list[dict[str, object]]]) -> None:
    session.output.items(page["items"], COLUMNS, empty="there are no keys")
