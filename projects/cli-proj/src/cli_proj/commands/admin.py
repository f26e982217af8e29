"""`evs admin`: what administrators do. Signs in for administration when that has not been done."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cyclopts import App

from cli_proj.api import Service
from cli_proj.context import resolve_context
from cli_proj.identity import signed_in
from cli_proj.messages import is_interactive, message
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.session import acting, signing_in_failures
from cli_proj.signing_in import choose_storage, sign_in_person

app = App(name="admin")
# Each noun's module is imported when the noun is used.
for name, target, text in (
    ("user", "admin_user:app", "People who can sign in."),
    ("invitation", "admin_invitation:app", "Links with which people make themselves an account."),
    ("upstream", "admin_upstream:app", "Other OpenID providers whose people may sign in here."),
    ("group", "admin_group:app", "People who may do the same: a group's roles are those of its members, too."),
    ("role", "admin_role:app", "What somebody may do who holds a role."),
    ("resource", "admin_resource:app", "Services that accept access tokens: their audience, scopes and permissions."),
    ("client", "admin_client:app", "Programs that may ask for tokens."),
    ("registration-token", "admin_registration_token:app", "Tokens with which others register clients by themselves."),
    ("key", "admin_key:app", "The keys that sign tokens."),
    ("audit", "admin_audit:app", "What happened, who did it, and the proof that nothing of that was changed."),
    ("export", "admin_transfer:export", "Write the whole configuration as one document."),
    ("import", "admin_transfer:import_", "Bring what such a document says into the product."),
):
    app.command(f"cli_proj.commands.{target}", name=name, help=text)


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
