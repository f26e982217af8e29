"""The REST resources under /v1: what administrators and programs do with JSON."""

from starlette.routing import BaseRoute

from auth_svc.api import (
    access_requests,
    audit,
    clients,
    factors,
    groups,
    invitations,
    keys,
    registration_tokens,
    resources,
    roles,
    transfer,
    upstreams,
    user_sessions,
    users,
)

RESOURCES = (
    *(users, user_sessions, factors, invitations, groups, roles, resources),
    *(clients, registration_tokens, upstreams, keys, audit, transfer, access_requests),
)


def rest_routes() -> list[BaseRoute]:
    """Return the routes of every resource."""
    return [route for resource in RESOURCES for route in resource.router.routes]
