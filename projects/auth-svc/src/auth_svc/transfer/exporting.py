"""Export: the rows of an installation as one document, read in one snapshot."""

from collections.abc import Iterable, Sequence

from sqlalchemy import select

from auth_svc.clients import clients
from auth_svc.clients.client import Client
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.rights import groups, resources, roles
from auth_svc.rights.resources import Resource
from auth_svc.tables import clients as client_rows
from auth_svc.tables import users
from auth_svc.transfer.document import (
    FORMAT,
    VERSION,
    ClientItem,
    Document,
    GroupItem,
    ResourceItem,
    RoleItem,
    UserItem,
)
from lib_events.clock import to_datetime
from lib_events.database import Connection

MANY_GROUPS = 100_000


def export(connection: Connection, issuer: str, secrets: bool, now: int) -> Document:  # noqa: FBT001
    """Return the document; `secrets` adds the hashes of passwords and client secrets."""
    own = {client.id: client for client in _clients(connection)}
    return Document(
        format=FORMAT,
        version=VERSION,
        exported_at=to_datetime(now).isoformat(),
        issuer=issuer,
        resources=[resource_item(row, own.get(row.id), secrets=secrets) for row in resources.load(connection)],
        roles=[
            RoleItem(
                name=role.name,
                description=role.description,
                includes=sorted(role.includes),
                permissions=sorted(role.permissions),
            )
            for role in roles.load(connection)
        ],
        groups=[
            GroupItem(name=group.name, description=group.description, roles=sorted(group.roles))
            for group in groups.page(connection, None, MANY_GROUPS)
        ],
        clients=[client_item(client, secrets=secrets) for client in own.values() if is_exported(client)],
        users=[user_item(account, secrets=secrets) for account in _accounts(connection)],
    )


def is_exported(client: Client) -> bool:
    """Whether a client is somebody's: our own follow the settings, a resource's comes with the resource."""
    return client.origin in ("administrator", "registered") and client.resource is None and client.disabled_at is None


def resource_item(resource: Resource, client: Client | None, *, secrets: bool) -> ResourceItem:
    """Describe a resource."""
    digest = client.secret_digest if client is not None and secrets and not resource.built_in else None
    return ResourceItem(
        id=resource.id,
        identifier=resource.identifier,
        name=resource.name,
        scopes=dict(resource.scopes),
        permissions=dict(resource.permissions),
        access_token_seconds=resource.access_token_seconds,
        secret_digest=digest.hex() if digest else None,
    )


def client_item(client: Client, *, secrets: bool) -> ClientItem:
    """Describe a client."""
    return ClientItem(
        id=client.id,
        name=client.name,
        public=client.is_public,
        redirect_uris=list(client.redirect_uris),
        post_logout_redirect_uris=list(client.post_logout_redirect_uris),
        grant_types=list(client.grant_types),
        scopes=sorted(client.scopes),
        roles=sorted(client.roles),
        consent=client.consent,
        access_token_seconds=client.access_token_seconds,
        origin="registered" if client.origin == "registered" else "administrator",
        auth_method=client.auth_method,
        jwks=client.jwks,
        jwks_uri=client.jwks_uri,
        id_token_algorithm=client.id_token_algorithm,
        dpop_bound=client.dpop_bound,
        pushed_only=client.pushed_only,
        logout_uri=client.logout_uri,
        secret_digest=client.secret_digest.hex() if client.secret_digest and secrets else None,
    )


def user_item(account: Account, *, secrets: bool) -> UserItem:
    """Describe a person."""
    return UserItem(
        id=account.id,
        username=account.username,
        name=account.name,
        email=account.email,
        email_verified=account.email_verified,
        roles=sorted(account.roles),
        groups=sorted(account.groups),
        enabled=account.enabled,
        password_hash=account.password_hash if secrets else None,
    )


def _clients(connection: Connection) -> Iterable[Client]:
    return [clients.read_client(row) for row in connection.execute(select(client_rows).order_by(client_rows.c.id))]


def _accounts(connection: Connection) -> Iterable[Account]:
    after: str | None = None
    while page := _page(connection, after):
        yield from page
        after = accounts.username_key(page[-1].username)


def _page(connection: Connection, after: str | None) -> Sequence[Account]:
    query = select(users).where(users.c.deleted_at.is_(None)).order_by(users.c.username_key).limit(500)
    return accounts.read_accounts(connection, query if after is None else query.where(users.c.username_key > after))
