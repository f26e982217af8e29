"""`evs admin upstream`: other OpenID providers whose people may sign in here."""

import os

from cyclopts import App

from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.failure import usage
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import print_fields

SECRET = "EVS_UPSTREAM_SECRET"  # noqa: S105 - its name

app = App(
    name="upstream",
    help_epilogue=f"""Examples:
  {SECRET}=… evs admin upstream create company https://id.company.example --client-id evs
  evs admin upstream list
  evs admin upstream delete company
""",
)

COLUMNS = (
    Column("id", lambda upstream: upstream["id"]),
    Column("name", lambda upstream: upstream["name"]),
    Column("issuer", lambda upstream: upstream["issuer"]),
    Column("makes accounts", lambda upstream: "yes" if upstream["makes_accounts"] else "no"),
    Column("domains", lambda upstream: upstream["domains"], is_optional=True),
    Column("redirect URI", lambda upstream: upstream["redirect_uri"], is_wide=True),
)
FIELDS = ("id", "name", "issuer", "client_id", "redirect_uri", "scopes", "makes_accounts", "domains")


@app.command(name="list")
async def list_upstreams(*, options: Options = Options()) -> None:  # noqa: B008
    """List the providers by name."""
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/upstreams", limit=10_000)
        session.output.items(items, COLUMNS, empty="people sign in here alone")


@app.command
async def create(
    id: str,  # noqa: A002 - the word of the API
    issuer: str,
    /,
    *,
    client_id: str,
    name: str | None = None,
    scopes: str = "openid profile email",
    makes_accounts: bool = False,
    domain: tuple[str, ...] = (),
    options: Options = Options(),  # noqa: B008
) -> None:
    """Let another provider's people sign in. The client secret it gave comes from EVS_UPSTREAM_SECRET.

    Parameters
    ----------
    id
        Part of the redirect URI: lower-case letters, digits and -.
    issuer
        Where the provider is: https, a host, and maybe a path.
    client_id
        What this service is called there.
    name
        What people read on the button (default: the id).
    scopes
        What is asked for there; openid is one of them.
    makes_accounts
        Give an account to whoever comes; otherwise people connect theirs first.
    domain
        Only those whose verified address is in this domain. May be repeated.
    """
    secret = os.environ.get(SECRET)
    if not secret:
        raise usage("which client secret did the provider give?", hint=f"set {SECRET}: a command line is no secret")
    body = {
        "id": id,
        "name": name or id,
        "issuer": issuer,
        "client_id": client_id,
        "client_secret": secret,
        "scopes": scopes,
        "makes_accounts": makes_accounts,
        "domains": list(domain),
    }
    async with administering(options) as session:
        session.output.item(await session.auth.post("/v1/admin/upstreams", body), _show)


@app.command
async def delete(id: str, /, *, keep_sessions: bool = False, options: Options = Options()) -> None:  # noqa: A002, B008
    """Let nobody sign in by way of a provider any more, and sign out whoever came by way of it.

    Parameters
    ----------
    id
        Which.
    keep_sessions
        Let sessions, tokens and delegations that began with it go on: it was not taken over by somebody.
    """
    async with administering(options) as session:
        query = {"keep_sessions": keep_sessions or None}
        await session.auth.call("DELETE", path_of("admin", "upstreams", id), query=query)
        message(f"{id} is deleted, what it began {'goes on' if keep_sessions else 'has ended'}")


def _show(upstream: Item) -> None:
    print_fields((name, upstream[name]) for name in FIELDS)
    message("register the redirect URI at the provider")
