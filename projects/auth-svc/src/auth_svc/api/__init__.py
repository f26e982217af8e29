"""The REST resources under /v1: what administrators and programs do with JSON."""

from starlette.routing import BaseRoute

from auth_svc.api import access_requests, audit, clients, factors, upstreams, users

RESOURCES = (users, factors, upstreams, clients, audit, access_requests)


def rest_routes() -> list[BaseRoute]:
    """Return the routes of every resource."""
    return [route for resource in RESOURCES for route in resource.router.routes]
