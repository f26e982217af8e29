"""`evs admin registration-token`: who may register clients by themselves (RFC 7591)."""

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.client_choices import scopes_of
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import print_fields

app = App(
    name="registration-token",
    help_epilogue="""Examples:
  evs admin registration-token create --uses 5 --note "for the weather team"
  evs admin registration-token list
  evs admin registration-token revoke ID
""",
)

COLUMNS = (
    Column("id", lambda token: token["id"]),
    Column("status", lambda token: token["status"]),
    Column("note", lambda token: token["note"]),
    Column("uses left", lambda token: token["uses_left"], align_right=True),
    Column("age", lambda token: moments.age(token["created_at"]), align_right=True),
    Column("expires", lambda token: token["expires_at"], is_wide=True),
    Column("scopes", lambda token: token["scopes"], is_wide=True),
)
FIELDS = ("id", "status", "note", "uses_left", "scopes", "created_by", "created_at", "expires_at", "token")


@app.command(name="list")
async def list_tokens(*, options: Options = Options()) -> None:  # noqa: B008
    """List every token and whether it is good; one lapses while whoever made it does not administer."""
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/registration-tokens", limit=10_000)
        session.output.items(items, COLUMNS, empty="nobody may register clients with a token")


@app.command
async def create(
    *,
    note: str,
    uses: int = 1,
    hours: int = 24,
    scope: tuple[str, ...] | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Let somebody register clients by themselves; prints the initial access token, once.

    Parameters
    ----------
    note
        For whom.
    uses
        How many clients.
    hours
        For how long.
    scope
        A scope that such clients may have. May be repeated.
    """
    body: dict[str, object] = {"note": note, "uses": uses, "expires_in_seconds": hours * 3_600}
    if scope is not None:
        body["scopes"] = scopes_of(scope)
    async with administering(options) as session:
        session.output.item(await session.auth.post("/v1/admin/registration-tokens", body), _show)


@app.command
async def revoke(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Take a token back; clients that were registered with it stay.

    Parameters
    ----------
    id
        Which.
    """
    async with administering(options) as session:
        await session.auth.call("DELETE", path_of("admin", "registration-tokens", id))
        message(f"{id} is revoked")


def _show(token: Item) -> None:
    print_fields((name, token.get(name)) for name in FIELDS)
    if token.get("token"):
        message("the token is not shown again: give it to whoever is to register clients")
