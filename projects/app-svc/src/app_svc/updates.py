"""The REST of updates: a question to a run that goes on, and its answer, also where that comes later."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.routing import BaseRoute

from app_svc.authorization import CallerOf
from app_svc.page import STORABLE
from app_svc.run_desk import RunDesk
from app_svc.run_start import read_wait
from app_svc.runs import IdempotencyKey, MessageName, Prefer, RunId, message_id, payload_text
from lib_events.problem import Problem

WAIT_SECONDS = 10.0

UpdateId = Annotated[str, Path(min_length=1, max_length=128, pattern=STORABLE)]


class UpdateAnswer(BaseModel):
    """What a run answered to an update: `pending` while it has not, `completed`, or `rejected` for the reason given."""

    id: str
    status: str
    reply: Any = None


def update_routes(updates: "UpdateRoutes", *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes of updates."""
    router = APIRouter(tags=["runs"], route_class=route_class)
    router.post("/v1/runs/{run_id}/updates/{name}")(updates.update)
    router.get("/v1/updates/{update_id}")(updates.answer)
    return router.routes


class UpdateRoutes:
    """One method for each route."""

    def __init__(self, desk: RunDesk) -> None:
        self._desk = desk

    async def update(
        self,
        run_id: RunId,
        name: MessageName,
        caller: CallerOf,
        response: Response,
        *,
        payload: Annotated[Any, Body()] = None,
        idempotency_key: IdempotencyKey = None,
        prefer: Prefer = None,
    ) -> UpdateAnswer:
        """Send an update and return the run's answer, or 202 and where to read it when the run has not answered yet.

        The same `Idempotency-Key` means the update that was sent with it before, whatever it said.
        """
        update_id = uuid.uuid4().hex
        if idempotency_key is not None:
            update_id = message_id(caller.subject, run_id, name, idempotency_key)
        await self._desk.update(run_id, caller, name, payload_text(payload), update_id)
        seconds = read_wait(prefer)
        status, reply = await self._desk.wait_answered(run_id, update_id, WAIT_SECONDS if seconds is None else seconds)
        response.headers["location"] = f"/v1/updates/{update_id}"
        if status == "rejected":
            raise Problem(409, "update-rejected", "The run rejected the update", str(reply), update=update_id)
        response.status_code = 202 if status == "pending" else 200
        return UpdateAnswer(id=update_id, status=status, reply=from_json(reply) if reply else None)

    async def answer(self, update_id: UpdateId, caller: CallerOf, *, prefer: Prefer = None) -> UpdateAnswer:
        """Read the answer to an update of a visible run; with `Prefer: wait=S` wait for it."""
        status, reply = await self._desk.answer_to(update_id, caller, read_wait(prefer) or 0)
        if status == "completed" and reply:
            return UpdateAnswer(id=update_id, status=status, reply=from_json(reply))
        return UpdateAnswer(id=update_id, status=status, reply=reply)
