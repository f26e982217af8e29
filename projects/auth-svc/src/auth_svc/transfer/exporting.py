"""Export: the rows of an installation as one document, read in one snapshot."""

from collections.abc import Iterable

from sqlalchemy import select

from auth_svc.clients import clients
from auth_svc.clients.client import Client
from auth_svc.clients.details import ClientDetails
from auth_svc.rights import groups, resources, roles
from auth_svc.rights.resources import Resource
from auth_svc.tables import clients as client_rows
from auth_svc.transfer.document import (
    FORMAT,
    VERSION,
    ClientItem,
    Document,
    GroupItem,
    ResourceItem,
    RoleItem,
    UpstreamItem,
)
from auth_svc.transfer.exporting_people import people
from auth_svc.upstreams import providers
from auth_svc.upstreams.providers import Upstream
from lib_events.clock import to_datetime
from lib_events.database import Connection
from lib_events.sealed import SealingKey

MANY_GROUPS = 100_000


def export(connection: Connection, issuer: str, now: int, unsealing: SealingKey | None) -> Document:
    """Return the document; with the key it also says what people and programs prove themselves with."""
    secrets = unsealing is not None
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
        upstreams=[upstream_item(upstream, unsealing) for upstream in providers.every(connection)],
        users=list(people(connection, issuer, unsealing)),
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
        actors=sorted(resource.actors),
        signing_alg=resource.signing_alg,
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
        default_max_age=client.default_max_age,
        details=ClientDetails.model_validate(client.details) if client.details else None,
        dpop_bound=client.dpop_bound,
        pushed_only=client.pushed_only,
        logout_uri=client.logout_uri,
        secret_digest=client.secret_digest.hex() if client.secret_digest and secrets else None,
    )


def upstream_item(upstream: Upstream, unsealing: SealingKey | None) -> UpstreamItem:
    """Describe an upstream."""
    return UpstreamItem(
        id=upstream.id,
        name=upstream.name,
        issuer=upstream.issuer,
        client_id=upstream.client_id,
        scopes=upstream.scopes,
        makes_accounts=upstream.makes_accounts,
        domains=list(upstream.domains),
        client_secret=None if unsealing is None else unsealing.unseal(upstream.sealed, purpose=upstream.purpose),
    )


def _clients(connection: Connection) -> Iterable[Client]:
    return [clients.read_client(row) for row in connection.execute(select(client_rows).order_by(client_rows.c.id))]
