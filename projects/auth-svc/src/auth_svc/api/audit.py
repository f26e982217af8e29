"""`/v1/admin/audit`: what happened, line by line."""

import json

from fastapi import APIRouter, Depends, Request

from auth_svc import audit
from auth_svc.api.administrator import PAGE, Limit, Line, administrator
from auth_svc.api.views import AuditLine, Page
from auth_svc.service import service_of
from lib_events.clock import to_datetime

router = APIRouter(prefix="/v1/admin", tags=["audit"], dependencies=[Depends(administrator)])


@router.get("/audit")
async def list_audit(request: Request, cursor: Line | None = None, limit: Limit = PAGE) -> Page[AuditLine]:
    """Show what happened, newest first."""
    rows = await service_of(request).database.read(audit.page, cursor, limit)
    lines = [
        AuditLine(
            id=row.id,
            at=to_datetime(row.at).isoformat(),
            who=row.who,
            what=row.what,
            about=row.about,
            address=row.address,
            detail=json.loads(row.detail),
        )
        for row in rows
    ]
    return Page(items=lines, next_cursor=str(lines[-1].id) if len(lines) == limit else None)
