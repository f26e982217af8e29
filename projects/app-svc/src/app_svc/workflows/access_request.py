"""Human approval across services: somebody asks the AuthService for a role, an admin decides, it grants or refuses.

The decision is an event; the AuthService checks it against its own pending row and answers with an event. This
workflow grants nothing itself.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from lib_auth.events import AccessGranted, AccessRefused, AccessRequested, AccessRequestedData
from lib_workflows import Context, WaitTimeout, workflow

DECISION_WITHIN = timedelta(days=7)
ANSWER_WITHIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class AccessOutcome:
    """What became of the request."""

    request: str
    user: str
    role: str
    outcome: Literal["granted", "refused", "expired"]
    by: str | None
    why: str | None


@workflow(name="access-request", version=1, type="human approval", on=AccessRequested)
async def access_request(ctx: Context, request: AccessRequestedData) -> AccessOutcome:
    """A person asks for a role; an admin approves or rejects; the AuthService grants it and says so.

    Starts by itself on `evs.access.requested` and ends when the AuthService has answered.
    """
    try:
        decision = await ctx.approval(
            "grant-role",
            text=f"{request.username} asks for the role {request.role}: {request.reason or '(no reason given)'}",
            to="role:admin",
            timeout=DECISION_WITHIN,
            about={"request": request.request, "user": request.user, "role": request.role, "nonce": request.nonce},
        )
    except WaitTimeout:
        why = f"nobody decided within {DECISION_WITHIN.days} days"
        return AccessOutcome(request.request, request.user, request.role, "expired", by=None, why=why)
    await ctx.set_view("decision", {"approved": decision.approved, "by": decision.by, "comment": decision.comment})
    return await _answer(ctx, request)


async def _answer(ctx: Context, request: AccessRequestedData) -> AccessOutcome:
    """Wait for what the AuthService made of the decision: it may refuse what an admin approved."""
    match = {"request": request.request}

    async def granted() -> AccessOutcome:
        told = await ctx.wait_event(AccessGranted, match=match, timeout=ANSWER_WITHIN)
        return AccessOutcome(told.request, told.user, told.role, "granted", by=told.by, why=None)

    async def refused() -> AccessOutcome:
        told = await ctx.wait_event(AccessRefused, match=match, timeout=ANSWER_WITHIN)
        return AccessOutcome(told.request, told.user, told.role, "refused", by=None, why=told.why)

    _, outcome = await ctx.race(granted(), refused())
    return outcome
