"""`/v1/admin/groups`: people who may do the same."""

from fastapi import APIRouter, Depends, Request

from auth_svc.api.administrator import PAGE, Administrator, Cursor, Limit, Named, administrator
from auth_svc.api.definition_views import GroupBody, GroupChanges, GroupView, given
from auth_svc.api.users import find_user
from auth_svc.api.views import Page, UserView
from auth_svc.people import account_changes
from auth_svc.people.account_changes import Search
from auth_svc.people.user_names import folded
from auth_svc.rights import groups
from auth_svc.rights.groups import Group
from auth_svc.service import service_of
from lib_events.database import Connection

router = APIRouter(prefix="/v1/admin", tags=["groups"], dependencies=[Depends(administrator)])


@router.get("/groups")
async def list_groups(request: Request, cursor: Cursor = None, limit: Limit = PAGE) -> Page[GroupView]:
    """List groups by name."""
    items = await service_of(request).database.read(_page, cursor, limit)
    return Page(items=items, next_cursor=items[-1].name if len(items) == limit else None)


@router.post("/groups", status_code=201)
async def create_group(body: GroupBody, by: Administrator) -> GroupView:
    """Make a group."""
    new = Group(name=body.name, description=body.description, roles=frozenset(body.roles))
    return GroupView.of(await by.commit(groups.create, new))


@router.get("/groups/{group}")
async def show_group(request: Request, group: Named) -> GroupView:
    """Show a group, by id or name."""
    return await service_of(request).database.transact(_show, group)


@router.patch("/groups/{group}")
async def change_group(request: Request, group: Named, body: GroupChanges, by: Administrator) -> GroupView:
    """Set what a group is called and what its members may do; what is taken away ends at once."""
    service = service_of(request)
    changed = await by.commit(groups.change, group, given(body, "roles"))
    await service.definitions.refresh()
    return await service.database.transact(_show, changed.id)


@router.delete("/groups/{group}", status_code=204)
async def delete_group(request: Request, group: Named, by: Administrator) -> None:
    """Delete a group; what only it gave its members ends at once."""
    service = service_of(request)
    await by.commit(groups.remove, group)
    await service.definitions.refresh()


@router.get("/groups/{group}/members")
async def list_members(request: Request, group: Named, cursor: Cursor = None, limit: Limit = PAGE) -> Page[UserView]:
    """List who is in a group, by user name."""
    service = service_of(request)
    found = await service.database.transact(groups.find, group)
    members = await service.database.read(account_changes.page, Search(group=found.id), cursor, limit)
    more = folded(members[-1].username) if len(members) == limit else None
    return Page(items=[UserView.of(account, service.issuer.roles) for account in members], next_cursor=more)


@router.put("/groups/{group}/members/{user}", status_code=204)
async def add_member(request: Request, group: Named, user: Named, by: Administrator) -> None:
    """Put a user into a group; twice is as good as once."""
    service = service_of(request)
    account = await find_user(service, user)
    await by.commit(groups.add_member, group, account.id)


@router.delete("/groups/{group}/members/{user}", status_code=204)
async def remove_member(request: Request, group: Named, user: Named, by: Administrator) -> None:
    """Take a user out of a group; what only it gave them ends at once."""
    service = service_of(request)
    account = await find_user(service, user)
    await by.commit(groups.remove_member, group, account.id)


def _page(connection: Connection, cursor: str | None, limit: int) -> list[GroupView]:
    found = groups.page(connection, cursor, limit)
    members = groups.count_members(connection, [group.id for group in found])
    return [GroupView.of(group, members.get(group.id, 0)) for group in found]


def _show(connection: Connection, name: str) -> GroupView:
    group = groups.find(connection, name)
    return GroupView.of(group, groups.count_members(connection, [group.id]).get(group.id, 0))
