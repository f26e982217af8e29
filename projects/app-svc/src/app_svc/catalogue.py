"""The REST of the catalogue: which workflows there are, and what each takes and gives."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app_svc.authorization import CallerOf
from app_svc.documents import SizeDocument, WorkflowDocument, describe_workflow
from app_svc.page import Page
from app_svc.run_start import find_workflow
from lib_events.database import Database
from lib_workflows import Registry
from lib_workflows.keeping.sizes import WorkflowSize, workflow_sizes


def catalogue_routes(registry: Registry, database: Database, *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/workflows`."""
    router = APIRouter(tags=["workflows"], route_class=route_class)
    # The catalogue does not change while the process lives, and schemas take time to make.
    documents = {workflow.name: describe_workflow(workflow) for workflow in registry.newest()}

    @router.get("/v1/workflows")
    async def get_workflows(_caller: CallerOf) -> Page[WorkflowDocument]:
        """List the workflows, each in its newest version."""
        return Page(items=list(documents.values()))

    @router.get("/v1/workflows/{name}")
    async def get_workflow(name: Annotated[str, Path(max_length=128)], _caller: CallerOf) -> WorkflowDocument:
        """Show one workflow with the JSON Schema of its input and output."""
        return documents[find_workflow(registry, name, status=404).name]

    @router.get("/v1/workflows/{name}/size")
    async def get_workflow_size(name: Annotated[str, Path(max_length=128)], _caller: CallerOf) -> SizeDocument:
        """Count a workflow's runs and the bytes of the database they take; that reads each of them."""
        found = find_workflow(registry, name, status=404).name
        sizes = await database.read(workflow_sizes, found)
        return SizeDocument.model_validate(sizes[0] if sizes else WorkflowSize(workflow=found))

    return router.routes
