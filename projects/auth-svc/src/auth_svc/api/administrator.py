"""Who may use `/v1/admin`, and the parameters its resources share."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from auth_svc.api.views import WITHOUT_NUL
from auth_svc.service import service_of
from lib_auth.principal import ADMIN, Principal
from lib_events.problem import Problem

PAGE = 100


async def administrator(request: Request) -> Principal:
    """Let in whoever has both the scope and the role `admin`."""
    guard = service_of(request).admin_guard
    principal = await guard.authenticate(request)
    guard.authorise(principal, scope=ADMIN, role=ADMIN)
    return principal


Limit = Annotated[int, Query(ge=1, le=500)]
Named = Annotated[str, Path(pattern=WITHOUT_NUL)]
Cursor = Annotated[str | None, Query(pattern=WITHOUT_NUL)]
Line = Annotated[int, Query(ge=1, lt=2**63)]
Administrator = Annotated[Principal, Depends(administrator)]


def invalid(field: str, detail: str) -> Problem:
    """The refusal of an input whose `field` is at fault."""
    errors = [{"pointer": f"/{field}", "detail": detail}]
    return Problem(422, "invalid-input", "The input is not valid", f"/{field}: {detail}", errors=errors)
