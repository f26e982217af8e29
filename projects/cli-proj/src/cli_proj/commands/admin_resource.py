"""`evs admin resource`: the services that accept access tokens."""

from collections.abc import Iterable
from typing import Literal

from cyclopts import App

from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.failure import usage
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import print_fields

app = App(
    name="resource",
    help_epilogue="""Examples:
  evs admin resource create orders https://orders.example.org --scope "orders=Work with your orders"
  evs admin resource edit orders --permission "orders:refund=Give money back" --token-seconds 60
  evs admin resource edit orders --actor evs-app     # runs may call it for the people who started them
  evs admin resource edit orders --signing-alg RS256 # its library knows no ES256
  evs admin resource rotate-secret orders
""",
)

COLUMNS = (
    Column("id", lambda resource: resource["id"]),
    Column("name", lambda resource: resource["name"]),
    Column("scopes", lambda resource: list(resource["scopes"])),
    Column("permissions", lambda resource: len(resource["permissions"]), align_right=True, is_optional=True),
    Column("identifier", lambda resource: resource["identifier"], is_wide=True),
)
FIELDS = ("id", "identifier", "name", "access_token_seconds", "signing_alg", "created_at", "secret")

type SigningAlg = Literal["ES256", "RS256"]


@app.command(name="list")
async def list_resources(*, options: Options = Options()) -> None:  # noqa: B008
    """List every resource, the built-in ones first."""
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/resources", limit=10_000)
        session.output.items(items, COLUMNS, empty="there are no resources")


@app.command
async def show(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Show a resource.

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
    identifier: str,
    /,
    *,
    name: str | None = None,
    scope: tuple[str, ...] = (),
    permission: tuple[str, ...] = (),
    token_seconds: int | None = None,
    actor: tuple[str, ...] = (),
    signing_alg: SigningAlg = "ES256",
    options: Options = Options(),  # noqa: B008
) -> None:
    """Make a resource and the client it asks about tokens with; prints its secret, once.

    Parameters
    ----------
    id
        Of the resource and its client: lower-case letters, digits and ._-.
    identifier
        The audience of its tokens: an absolute URI.
    name
        What people call it (default: the id).
    scope
        NAME=WHAT PEOPLE READ: what a client may be allowed there. May be repeated.
    permission
        NAME=DESCRIPTION: what a role may carry. May be repeated.
    token_seconds
        The longest its access tokens live.
    actor
        A client that people may let act for them there: evs-app (their runs), another resource. May be repeated.
    signing_alg
        What its access tokens are signed with; RS256 where its library knows nothing else.
    """
    body: dict[str, object] = {"id": id, "identifier": identifier, "name": name or id}
    body |= {"access_token_seconds": token_seconds, "signing_alg": signing_alg}
    described = {"scopes": _described(scope), "permissions": _described(permission), "actors": list(actor)}
    async with administering(options) as session:
        session.output.item(await session.auth.post("/v1/admin/resources", body | described), _show)


@app.command
async def edit(
    id: str,  # noqa: A002 - the word of the API
    /,
    *,
    name: str | None = None,
    scope: tuple[str, ...] = (),
    remove_scope: tuple[str, ...] = (),
    permission: tuple[str, ...] = (),
    remove_permission: tuple[str, ...] = (),
    token_seconds: int | None = None,
    actor: tuple[str, ...] = (),
    remove_actor: tuple[str, ...] = (),
    signing_alg: SigningAlg | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Change a resource; its identifier stays.

    Parameters
    ----------
    id
        Which.
    name
        What people call it from now on.
    scope
        NAME=WHAT PEOPLE READ: add it, or say it otherwise. May be repeated.
    remove_scope
        A scope to remove. May be repeated.
    permission
        NAME=DESCRIPTION: add it, or say it otherwise. May be repeated.
    remove_permission
        A permission to remove; no role may carry it. May be repeated.
    token_seconds
        The longest its access tokens live; 0 for as long as the client says.
    actor
        A client that people may let act for them there: evs-app (their runs), another resource. May be repeated.
    remove_actor
        A client that gets no token for anybody there any more. May be repeated.
    signing_alg
        What its access tokens are signed with from now on.
    """
    async with administering(options) as session:
        before = await session.auth.get(_path(id))
        changes: dict[str, object] = {
            "scopes": _without(before["scopes"] | _described(scope), remove_scope),
            "permissions": _without(before["permissions"] | _described(permission), remove_permission),
        }
        if actor or remove_actor:
            changes["actors"] = sorted({*before["actors"], *actor} - set(remove_actor))
        if name is not None:
            changes["name"] = name
        if token_seconds is not None:
            changes["access_token_seconds"] = token_seconds or None
        if signing_alg is not None:
            changes["signing_alg"] = signing_alg
        session.output.item(await session.auth.call("PATCH", _path(id), body=changes), _show)


@app.command
async def rotate_secret(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Give a resource's client a new secret and print it, once; the old one ends at once.

    Parameters
    ----------
    id
        Which.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.post(_path(id, "rotate-secret")), _show)


@app.command
async def delete(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Delete a resource and its client; nobody gets a token for it any more.

    Parameters
    ----------
    id
        Which.
    """
    async with administering(options) as session:
        await session.auth.call("DELETE", _path(id))
        message(f"{id} is deleted")


def _described(given: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, _, description = text.partition("=")
        if not name:
            raise usage(f"a scope or permission must be NAME=DESCRIPTION, got {text!r}")
        pairs[name] = description
    return pairs


def _without(described: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    gone = set(names)
    if unknown := sorted(gone - described.keys()):
        raise usage(f"there is no {unknown[0]!r} to remove", hint="evs admin resource show ID lists them")
    return {name: text for name, text in described.items() if name not in gone}


def _path(id: str, *rest: str) -> str:  # noqa: A002
    return path_of("admin", "resources", id, *rest)


def _show(resource: Item) -> None:
    described = [
        (kind, f"{name}  {text}".strip())
        for kind, names in (("scope", resource["scopes"]), ("permission", resource["permissions"]))
        for name, text in names.items()
    ]
    described += [("actor", client) for client in resource["actors"]]
    print_fields([*((name, resource.get(name)) for name in FIELDS), *described])
    if resource.get("secret"):
        message("the secret is not shown again: keep it where the resource server finds it")
