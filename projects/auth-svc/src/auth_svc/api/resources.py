"""`/v1/admin/resources`: the services that accept our tokens, with their scopes and permissions."""

from fastapi import APIRouter, Depends, Request

from auth_svc import opaque
from auth_svc.api.administrator import Administrator, Named, administrator
from auth_svc.api.definition_views import ResourceBody, ResourceChanges, ResourceView, given
from auth_svc.api.views import Page
from auth_svc.rights import resource_servers, resources
from auth_svc.rights.resources import Resource
from auth_svc.service import service_of

router = APIRouter(prefix="/v1/admin", tags=["resources"], dependencies=[Depends(administrator)])


@router.get("/resources")
async def list_resources(request: Request) -> Page[ResourceView]:
    """List every resource server, the built-in ones first."""
    found = await service_of(request).database.read(resources.load)
    return Page(items=[ResourceView.of(resource) for resource in found])


@router.post("/resources", status_code=201)
async def create_resource(request: Request, body: ResourceBody, by: Administrator) -> ResourceView:
    """Make a resource server and its client; the secret is in this answer and nowhere else."""
    service, secret = service_of(request), opaque.new_secret()
    new = Resource(**body.model_dump(exclude={"actors"}), actors=frozenset(body.actors))
    made = await by.commit(resource_servers.create, new, secret)
    await service.definitions.refresh()
    return ResourceView.of(made, secret)


@router.get("/resources/{resource}")
async def show_resource(request: Request, resource: Named) -> ResourceView:
    """Show a resource server, by id."""
    return ResourceView.of(await service_of(request).database.transact(resource_servers.find, resource))


@router.patch("/resources/{resource}")
async def change_resource(request: Request, resource: Named, body: ResourceChanges, by: Administrator) -> ResourceView:
    """Set a resource server's name, scopes, permissions and how long its tokens may live."""
    service = service_of(request)
    changed = await by.commit(resource_servers.change, resource, given(body, "actors"))
    await service.definitions.refresh()
    return ResourceView.of(changed)


@router.delete("/resources/{resource}", status_code=204)
async def delete_resource(request: Request, resource: Named, by: Administrator) -> None:
    """Delete a resource server and its client; nobody gets a token for it any more."""
    service = service_of(request)
    await by.commit(resource_servers.remove, resource)
    await service.definitions.refresh()


@router.post("/resources/{resource}/rotate-secret")
async def rotate_secret(resource: Named, by: Administrator) -> ResourceView:
    """Give a resource server's client a new secret; the old one ends at once."""
    secret = opaque.new_secret()
    return ResourceView.of(await by.commit(resource_servers.set_secret, resource, secret), secret)
