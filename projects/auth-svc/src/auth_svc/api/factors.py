"""`/v1/admin/users/{user}/factors`: for somebody who has lost every factor they had."""

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from auth_svc.api.administrator import Administrator, Named, administrator
from auth_svc.api.users import find_user
from auth_svc.factors import held
from auth_svc.service import service_of

router = APIRouter(prefix="/v1/admin", tags=["users"], dependencies=[Depends(administrator)])


@router.delete("/users/{user}/factors", status_code=204)
async def remove_factors(request: Request, user: Named, by: Administrator) -> Response:
    """Remove a user's authenticator app, passkeys and recovery codes; the password alone lets them in then."""
    service = service_of(request)
    account = await find_user(service, user)
    await by.commit(held.remove_all, account.id)
    return Response(status_code=204)
