"""The REST resources under /v1: what administrators and programs do with JSON."""

from starlette.routing import BaseRoute

from auth_svc.api import access_requests, audit, clients, groups, resources, roles, transfer, user_sessions, users

RESOURCES = (users, user_sessions, groups, roles, resources, clients, audit, transfer, access_requests)


def rest_routes() -> list[BaseRoute]:
    """Return the routes of every resource."""
    return [route for resource in RESOURCES for route in resource.router.routes]
