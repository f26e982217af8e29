"""`/v1/admin/audit`: what happened, line by line, and the chain that proves that nothing of it was changed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from auth_svc import audit, audit_chain
from auth_svc.api.administrator import PAGE, Limit, Line, Text, administrator
from auth_svc.api.views import AuditLine, ChainHead, ChainPage, ChainPlace, Page
from auth_svc.audit import Wanted
from auth_svc.service import service_of
from lib_auth.audit_chain import Head
from lib_events.clock import to_datetime
from lib_events.database import Connection

router = APIRouter(prefix="/v1/admin", tags=["audit"], dependencies=[Depends(administrator)])

After = Annotated[int, Query(ge=0, lt=2**63)]


@router.get("/audit")
async def list_audit(
    request: Request,
    *,
    what: Text = None,
    who: Text = None,
    about: Text = None,
    cursor: Line | None = None,
    limit: Limit = PAGE,
) -> Page[AuditLine]:
    """Show what happened, newest first."""
    rows = await service_of(request).database.read(audit.page, Wanted(what, who, about), cursor, limit)
    lines = [AuditLine(**audit.content(row, row.position), hash=row.hash) for row in rows]
    return Page(items=lines, next_cursor=str(lines[-1].id) if len(lines) == limit else None)


@router.get("/audit/head")
async def show_head(request: Request) -> ChainHead:
    """Show where the chain ends: a place to write down elsewhere."""
    state = await service_of(request).database.read(audit_chain.state)
    return ChainHead(
        position=state.head.position,
        hash=state.head.hash,
        anchor=_place(state.anchor),
        anchored_at=to_datetime(state.anchored_at).isoformat() if state.anchored_at else None,
        waiting=state.waiting,
    )


@router.get("/audit/chain")
async def read_chain(request: Request, after: After = 0, limit: Limit = PAGE) -> ChainPage:
    """Show chained lines in their order after a position, for whoever verifies or exports them."""
    return await service_of(request).database.read(_chain_page, after, limit)


def _chain_page(connection: Connection, after: int, limit: int) -> ChainPage:
    start = audit_chain.place_before(connection, after)
    items = [AuditLine(**line) for line in audit_chain.lines(connection, max(after, start.position), limit)]
    more = str(items[-1].position) if len(items) == limit else None
    return ChainPage(start=_place(start), items=items, next_cursor=more)


def _place(head: Head) -> ChainPlace:
    return ChainPlace(position=head.position, hash=head.hash)
