"""The REST of approvals: what waits for a person, and their decision in one transaction with its event."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import and_, or_, select

from app_svc.authorization import Caller, CallerOf
from app_svc.documents import ApprovalDocument, describe_approval
from app_svc.page import STORABLE, CursorText, Limit, Page, cut, decode_cursor, encode_cursor
from lib_auth.principal import with_included
from lib_events.database import Connection, Database
from lib_events.problem import Problem
from lib_workflows import commands
from lib_workflows.errors import ApprovalDecided, ApprovalNotFound, CommandRefused
from lib_workflows.tables import approvals

type ApprovalStatus = Literal["pending", "approved", "rejected", "expired"]
ApprovalId = Annotated[str, Path(min_length=1, max_length=200, pattern=STORABLE)]


class DecisionBody(BaseModel):
    """A decision."""

    model_config = ConfigDict(extra="forbid")

    approved: bool = Field(strict=True)
    comment: str | None = Field(default=None, max_length=2_000, pattern=STORABLE)
    form: dict[str, Any] | None = Field(default=None, max_length=100)


def approval_routes(database: Database, *, route_class: type[APIRoute]) -> APIRouter:
    """Return the routes under `/v1/approvals`."""
    router = APIRouter(tags=["approvals"], route_class=route_class)

    @router.get("/v1/approvals")
    async def get_approvals(
        caller: CallerOf,
        *,
        status: Annotated[list[ApprovalStatus] | None, Query()] = None,
        run: Annotated[str | None, Query(max_length=128, pattern=STORABLE)] = None,
        cursor: CursorText = None,
        limit: Limit = 50,
    ) -> Page[ApprovalDocument]:
        """List the approvals that name me (an operator with `workflows:manage` sees all), newest first."""
        return await database.read(_list, caller, _Filter(status or (), run), cursor, limit)

    @router.get("/v1/approvals/{approval_id}")
    async def get_approval(approval_id: ApprovalId, caller: CallerOf) -> ApprovalDocument:
        """Show one approval."""
        return await database.read(_find, approval_id, caller)

    @router.post("/v1/approvals/{approval_id}/decision")
    async def decide(approval_id: ApprovalId, body: DecisionBody, caller: CallerOf) -> ApprovalDocument:
        """Decide; only who the approval names may, and only once."""
        try:
            return await database.transact(_decide, approval_id, body, caller)
        except ApprovalNotFound as missing:
            raise _not_found(approval_id) from missing
        except ApprovalDecided as decided:
            detail = f"the approval must be pending, got {decided.status}; nothing was changed"
            raise Problem(409, "approval-decided", "This is decided already", detail) from decided
        except CommandRefused as refused:
            raise Problem(409, "run-status", "The run cannot hear of it now", str(refused)) from refused

    return router


@dataclass(frozen=True, slots=True)
class _Filter:
    statuses: Sequence[str]
    run: str | None


def _list(
    connection: Connection, caller: Caller, wanted: _Filter, cursor: str | None, limit: int
) -> Page[ApprovalDocument]:
    query = select(approvals)
    if not caller.sees_all:
        roles = with_included(caller.principal.roles)
        query = query.where(approvals.c.addressee.in_([f"user:{caller.subject}", *(f"role:{role}" for role in roles)]))
    if wanted.statuses:
        query = query.where(approvals.c.status.in_(wanted.statuses))
    if wanted.run is not None:
        query = query.where(approvals.c.run == wanted.run)
    after = decode_cursor(cursor, int, str)
    if after is not None:
        older = and_(approvals.c.asked_at == after[0], approvals.c.id < after[1])
        query = query.where(or_(approvals.c.asked_at < after[0], older))
    query = query.order_by(approvals.c.asked_at.desc(), approvals.c.id.desc()).limit(limit + 1)
    rows, last = cut(connection.execute(query).all(), limit)
    next_cursor = encode_cursor(last.asked_at, last.id) if last is not None else None
    return Page(items=[describe_approval(row) for row in rows], next_cursor=next_cursor)


def _find(connection: Connection, approval_id: str, caller: Caller) -> ApprovalDocument:
    row = connection.execute(select(approvals).where(approvals.c.id == approval_id)).one_or_none()
    if row is None or not (caller.sees_all or caller.is_addressed(row.addressee)):
        raise _not_found(approval_id)
    return describe_approval(row)


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
