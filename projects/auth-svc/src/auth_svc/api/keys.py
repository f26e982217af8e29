"""`/v1/admin/keys`: the keys that sign tokens."""

from typing import Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from auth_svc.api.administrator import Administrator, Named, administrator
from auth_svc.api.views import Body, Page
from auth_svc.protocol.key_rotation import KeyRotation, KeyState
from auth_svc.protocol.signing_keys import KeyUnknown, SigningKey
from auth_svc.service import service_of
from lib_events.clock import to_datetime
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["keys"], dependencies=[Depends(administrator)])


class RotationBody(Body):
    """Which kind of key is to be followed by a new one."""

    algorithm: Literal["ES256", "RS256"] = "ES256"


class KeyView(BaseModel):
    """A signing key as administrators see it; its private half stays here."""

    id: str
    algorithm: str
    state: KeyState
    created_at: str
    active_from: str

    @classmethod
    def of(cls, key: SigningKey, rotation: KeyRotation) -> "KeyView":
        """Show a key."""
        return cls(
            id=key.id,
            algorithm=key.algorithm,
            state=rotation.state_of(key),
            created_at=to_datetime(key.created_at).isoformat(),
            active_from=to_datetime(key.active_from).isoformat(),
        )


@router.get("/keys")
async def list_keys(request: Request) -> Page[KeyView]:
    """List the keys, newest first."""
    return await _page(request)


@router.post("/keys:rotate")
async def rotate_keys(request: Request, body: RotationBody, by: Administrator) -> Page[KeyView]:
    """Publish the next key; it takes over in an hour, when everybody has seen it."""
    service = service_of(request)
    await service.key_rotation.rotate(body.algorithm, by.commit)
    return await _page(request)


@router.post("/keys/{key}/revoke")
async def revoke_key(request: Request, key: Named, by: Administrator) -> Page[KeyView]:
    """Refuse at once whatever a key has signed, because somebody else has it; a new one signs from now on."""
    service = service_of(request)
    try:
        await service.key_rotation.revoke(key, by.commit)
    except KeyUnknown as error:
        raise Problem(404, "key-unknown", detail=str(error)) from error
    return await _page(request)


async def _page(request: Request) -> Page[KeyView]:
    rotation = service_of(request).key_rotation
    keys = await rotation.all()
    return Page(items=[KeyView.of(key, rotation) for key in reversed(keys)])
