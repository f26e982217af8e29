"""`evs admin invitation`: who may make themselves an account."""

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.commands.admin import administering
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.printing import print_fields

app = App(
    name="invitation",
    help_epilogue="""Examples:
  evs admin invitation create --email grace@example.org --role operator
  evs admin invitation list
  evs admin invitation revoke ID
""",
)

COLUMNS = (
    Column("id", lambda invitation: invitation["id"]),
    Column("status", lambda invitation: invitation["status"]),
    Column("e-mail", lambda invitation: invitation["email"]),
    Column("roles", lambda invitation: invitation["roles"], is_optional=True),
    Column("age", lambda invitation: moments.age(invitation["created_at"]), align_right=True),
    Column("expires", lambda invitation: invitation["expires_at"], is_wide=True),
)
FIELDS = ("id", "status", "email", "roles", "created_at", "expires_at", "used_by", "link")


@app.command(name="list")
async def list_invitations(*, options: Options = Options()) -> None:  # noqa: B008
    """List every invitation and what became of it."""
    async with administering(options) as session:
        items = await session.auth.pages("/v1/admin/invitations", limit=10_000)
        session.output.items(items, COLUMNS, empty="nobody was invited")


@app.command
async def create(
    *,
    email: str | None = None,
    role: tuple[str, ...] = (),
    expires_seconds: int | None = None,
    idempotency_key: str | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Invite somebody; prints the link, once.

    Parameters
    ----------
    email
        Where to mail the link, too.
    role
        A role that the account will have. May be repeated.
    expires_seconds
        How long the link works (default: a week).
    idempotency_key
        Asked for twice with the same key, it is one invitation and one mail.
    """
    body: dict[str, object] = {"email": email, "roles": list(role)}
    if expires_seconds is not None:
        body["expires_seconds"] = expires_seconds
    async with administering(options) as session:
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        session.output.item(await session.auth.post("/v1/admin/invitations", body, headers=headers), _show)


@app.command
async def revoke(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Withdraw an invitation that was not used yet.

    Parameters
    ----------
    id
        Which.
    """
    async with administering(options) as session:
        session.output.item(await session.auth.post(path_of("admin", "invitations", id, "revoke")), _show)


def _show(invitation: Item) -> None:
    print_fields((name, invitation.get(name)) for name in FIELDS)
    if invitation.get("link"):
        message("the link is not shown again: send it to whom you invite")
