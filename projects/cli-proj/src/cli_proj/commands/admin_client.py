"""`evs admin client`: the programs that may ask for tokens."""

from cyclopts import App

from cli_proj.api import path_of
from cli_proj.client_choices import ClientChoices
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.failure import usage
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import print_fields

app = App(
    name="client",
    help_epilogue="""Examples:
  evs admin client create shop --redirect-uri https://shop.example/callback --scope openid --scope profile
  evs admin client create robot --grant client_credentials --scope events:read
  evs admin client edit shop --default-max-age 3600 --policy-uri https://shop.example/privacy
  evs admin client rotate-secret robot
""",
)

COLUMNS = (
    Column("id", lambda client: client["id"]),
    Column("name", lambda client: client["name"]),
    Column("kind", lambda client: "public" if client["public"] else client["auth_method"] or "secret"),
    Column("origin", lambda client: client["origin"]),
    Column("enabled", lambda client: client["enabled"]),
    Column("scopes", lambda client: client["scopes"], is_wide=True),
)
FIELDS = (
    *("id", "name", "origin", "enabled", "public", "auth_method", "redirect_uris", "post_logout_redirect_uris"),
    *("grant_types", "scopes", "roles", "consent", "access_token_seconds", "jwks", "jwks_uri"),
    *("id_token_algorithm", "default_max_age", "dpop_bound", "pushed_only", "logout_uri", "details", "resource"),
    *("created_at", "secret"),
)


@app.command(name="list")
async def list_clients(*, options: Options = Options()) -> None:  # noqa: B008
    """List every client."""
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/clients", limit=10_000)
        session.output.items(items, COLUMNS, empty="there are no clients")


@app.command
async def show(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Show a client.

    Parameters
    ----------
    id
        Which.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.get(_path(id)), _show)


@app.command
async def create(
    id: str,  # noqa: A002 - the word of the API
    /,
    *,
    public: bool = False,
    choices: ClientChoices = ClientChoices(),  # noqa: B008
    options: Options = Options(),  # noqa: B008
) -> None:
    """Make a client; prints its secret, once.

    Parameters
    ----------
    id
        Of the client: lower-case letters, digits and ._-.
    public
        It runs where it can keep no secret: in browsers and on people's machines.
    """
    chosen = choices.members()
    by_key = {"auth_method": "private_key_jwt"} if chosen.keys() & {"jwks", "jwks_uri"} else {}
    body = {"id": id, "name": id, "public": public} | by_key | chosen
    async with administering(options) as session:
        session.output.item(await session.auth.post("/v1/admin/clients", body), _show)


@app.command
async def edit(
    id: str,  # noqa: A002 - the word of the API
    /,
    *,
    choices: ClientChoices = ClientChoices(),  # noqa: B008
    options: Options = Options(),  # noqa: B008
) -> None:
    """Change a client; what is taken away ends at once, and what is left out stays.

    Parameters
    ----------
    id
        Which.
    """
    changes = choices.members()
    if not changes:
        raise usage("what is to change?", hint="evs admin client edit ID --name NAME --scope SCOPE …")
    for one, other in (("jwks", "jwks_uri"), ("jwks_uri", "jwks")):
        if changes.get(one):  # a client has its keys in one place
            changes.setdefault(other, None)
    async with administering(options) as session:
        session.output.item(await session.auth.call("PATCH", _path(id), body=changes), _show)


@app.command
async def rotate_secret(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Give a client a new secret and print it, once; the old one ends at once.

    Parameters
    ----------
    id
        Which.
    """
    await _act(id, "rotate-secret", options)


@app.command
async def disable(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Stop a client from getting tokens, and refuse those it holds.

    Parameters
    ----------
    id
        Which.
    """
    await _act(id, "disable", options)


@app.command
async def enable(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Let a disabled client go on.

    Parameters
    ----------
    id
        Which.
    """
    await _act(id, "enable", options)


@app.command
async def delete(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Delete a client, and end whatever people allowed it.

    Parameters
    ----------
    id
        Which.
    """
    async with administering(options) as session:
        await session.auth.call("DELETE", _path(id))
        message(f"{id} is deleted")


# As it was called before tokens could be listed and revoked, too.
app.command(
    "cli_proj.commands.admin_registration_token:create",
    name="registration-token",
    help="Let somebody register clients by themselves; the same as evs admin registration-token create.",
)


async def _act(id: str, what: str, options: Options) -> None:  # noqa: A002
    async with administering(options) as session:
        session.output.item(await session.auth.post(_path(id, what)), _show)


def _path(id: str, *rest: str) -> str:  # noqa: A002
    return path_of("admin", "clients", id, *rest)


def _show(client: Item) -> None:
    print_fields([(name, client.get(name)) for name in FIELDS])
    if client.get("secret"):
        message("the secret is not shown again: keep it where the client finds it")
