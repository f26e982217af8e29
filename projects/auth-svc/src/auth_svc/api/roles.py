"""`/v1/admin/roles`: what each role includes, and the permissions it carries."""

from fastapi import APIRouter, Depends, Request

from auth_svc.api.administrator import Administrator, Named, administrator
from auth_svc.api.definition_views import RoleBody, RoleChanges, RoleView, given
from auth_svc.api.views import Page
from auth_svc.audit import Actor
from auth_svc.people import invitations
from auth_svc.rights import groups, role_news, roles
from auth_svc.rights.roles import Role
from auth_svc.service import service_of
from lib_events.database import Connection

router = APIRouter(prefix="/v1/admin", tags=["roles"], dependencies=[Depends(administrator)])


@router.get("/roles")
async def list_roles(request: Request) -> Page[RoleView]:
    """List every role, the built-in ones first."""
    found = await service_of(request).database.read(roles.load)
    return Page(items=[RoleView.of(role) for role in found])


@router.post("/roles", status_code=201)
async def create_role(request: Request, body: RoleBody, by: Administrator) -> RoleView:
    """Make a role."""
    service = service_of(request)
    new = Role(
        name=body.name,
        description=body.description,
        includes=frozenset(body.includes),
        permissions=frozenset(body.permissions),
    )
    made = await by.commit(roles.create, new)
    await service.definitions.refresh()
    return RoleView.of(made)


@router.get("/roles/{role}")
async def show_role(request: Request, role: Named) -> RoleView:
    """Show a role."""
    return RoleView.of(await service_of(request).database.transact(roles.find, role))


@router.patch("/roles/{role}")
async def change_role(request: Request, role: Named, body: RoleChanges, by: Administrator) -> RoleView:
    """Set what a role includes and carries; what that takes from its holders ends at once."""
    service = service_of(request)
    changed = await by.commit(_change, role, given(body, "includes", "permissions"))
    await service.definitions.refresh()
    return RoleView.of(changed)


@router.delete("/roles/{role}", status_code=204)
async def delete_role(request: Request, role: Named, by: Administrator) -> None:
    """Delete a role that nobody holds and no other role includes."""
    service = service_of(request)
    await by.commit(_remove, role)
    await service.definitions.refresh()


def _remove(connection: Connection, name: str, actor: Actor) -> None:
    roles.remove(connection, name, actor)
    invitations.keep(connection, name, actor.at)


def _change(connection: Connection, name: str, changes: dict[str, object], actor: Actor) -> Role:
    changed = role_news.change_role(connection, name, changes, actor)
    groups.keep_own_access(connection, actor)
    return changed
