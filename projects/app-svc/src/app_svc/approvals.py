"""The REST of approvals: what waits for a person, and their decision in one transaction with its event."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.routing import BaseRoute

from app_svc.authorization import Caller, CallerOf
from app_svc.documents import ApprovalDocument
from app_svc.page import STORABLE, CursorText, Limit, Page
from lib_events.database import Connection, Database
from lib_events.problem import Problem
from lib_workflows.errors import ApprovalDecided, ApprovalNotFound, CommandRefused, PayloadTooLarge
from lib_workflows.reading import queries
from lib_workflows.runs import commands

FORM_LIMIT_BYTES = 64 * 1024  # it travels in the decision's event

type ApprovalStatus = Literal["pending", "approved", "rejected", "expired"]
ApprovalId = Annotated[str, Path(min_length=1, max_length=200, pattern=STORABLE)]


class DecisionBody(BaseModel):
    """A decision."""

    model_config = ConfigDict(extra="forbid")

    approved: bool = Field(strict=True)
    comment: str | None = Field(default=None, max_length=2_000, pattern=STORABLE)
    form: dict[str, Any] | None = Field(default=None, max_length=100)


def approval_routes(approvals: "ApprovalRoutes", *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/approvals`."""
    router = APIRouter(tags=["approvals"], route_class=route_class)
    router.get("/v1/approvals")(approvals.get_approvals)
    router.get("/v1/approvals/{approval_id}")(approvals.get_approval)
    router.post("/v1/approvals/{approval_id}/decision")(approvals.decide)
    return router.routes


class ApprovalRoutes:
    """One method for each route."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_approvals(
        self,
        caller: CallerOf,
        *,
        status: Annotated[list[ApprovalStatus] | None, Query()] = None,
        run: Annotated[str | None, Query(max_length=128, pattern=STORABLE)] = None,
        cursor: CursorText = None,
        limit: Limit = 50,
    ) -> Page[ApprovalDocument]:
        """List the approvals that name me (an operator with `workflows:manage` sees all), newest first."""
        named = None if caller.sees_all else caller.addressees
        asked = partial(
            queries.list_approvals, addressees=named, statuses=status or (), run=run, cursor=cursor, limit=limit
        )
        return Page[ApprovalDocument].model_validate(await self._database.read(asked))

    async def get_approval(self, approval_id: ApprovalId, caller: CallerOf) -> ApprovalDocument:
        """Show one approval."""
        return await self._database.read(_find, approval_id, caller)

    async def decide(self, approval_id: ApprovalId, body: DecisionBody, caller: CallerOf) -> ApprovalDocument:
        """Decide; only who the approval names may, and only once."""
        if (size := len(to_json(body.form))) > FORM_LIMIT_BYTES:
            raise PayloadTooLarge("form", size, FORM_LIMIT_BYTES)
        try:
            return await self._database.transact(_decide, approval_id, body, caller)
        except ApprovalNotFound as missing:
            raise _not_found(approval_id) from missing
        except ApprovalDecided as decided:
            detail = f"the approval must be pending, got {decided.status}; nothing was changed"
            raise Problem(409, "approval-decided", "This is decided already", detail) from decided
        except CommandRefused as refused:
            raise Problem(409, "run-status", "The run cannot hear of it now", str(refused)) from refused


def _find(connection: Connection, approval_id: str, caller: Caller) -> ApprovalDocument:
    approval = queries.get_approval(connection, approval_id)
    if approval is None or not (caller.sees_all or approval.to in caller.addressees):
        raise _not_found(approval_id)
    return ApprovalDocument.model_validate(approval)


def _decide(connection: Connection, approval_id: str, body: DecisionBody, caller: Caller) -> ApprovalDocument:
    _find(connection, approval_id, caller)  # whom it does not name does not learn that it exists
    commands.decide(
        connection,
        approval_id,
        approved=body.approved,
        by=caller.as_run_principal(),
        comment=body.comment,
        form=body.form,
    )
    return _find(connection, approval_id, caller)


def _not_found(approval_id: str) -> Problem:
    detail = f"no approval {approval_id!r} names you; list your approvals"
    return Problem(404, "approval-not-found", "There is no such approval", detail)
