"""Delegations are asked for with a person's own token; what they have to do first, a `Problem` says."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from app_svc.authorization import Caller
from lib_auth.credentials import read_credentials
from lib_auth.delegations import ConsentNeeded, DelegationRejected, Delegations, GivenDelegation
from lib_auth.oauth_error import ServerUnavailable
from lib_events.clock import to_datetime
from lib_events.problem import Problem
from lib_workflows.authoring.delegation import LONGEST
from lib_workflows.authoring.workflow import AnyWorkflow

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = "2"


class Delegator:
    """Asks the AuthService, with a caller's own token, for what a workflow may do for them."""

    def __init__(self, known: Delegations) -> None:
        self._known = known

    async def begin(
        self,
        workflow: AnyWorkflow,
        caller: Caller,
        http_request: Request,
        *,
        purpose: str,
        lasts: timedelta | None = None,
    ) -> GivenDelegation:
        """Get a delegation for what `workflow` declares; raises the `Problem` that says what the caller has to do."""
        token = _token_of_person(workflow, caller, http_request)
        declared = workflow.acts_for_starter
        try:
            return await self._known.begin(
                token,
                resources=[each.resource for each in declared],
                scope=sorted({word for each in declared for word in each.scope}),
                purpose=purpose,
                lasts=min(LONGEST, lasts or max(each.lasts for each in declared)),
            )
        except (ConsentNeeded, DelegationRejected, ServerUnavailable) as error:
            raise _problem_of(workflow, error) from error

    async def begin_run(
        self, workflow: AnyWorkflow, run_id: str, caller: Caller, http_request: Request, *, run_at: int | None = None
    ) -> GivenDelegation:
        """Get the delegation of a run, which lasts as declared from when the run may begin."""
        waits = timedelta() if run_at is None else max(timedelta(), to_datetime(run_at) - datetime.now(UTC))
        lasts = waits + max(each.lasts for each in workflow.acts_for_starter)
        purpose = f"Run {run_id} of the workflow {workflow.name}"
        return await self.begin(workflow, caller, http_request, purpose=purpose, lasts=lasts)

    async def end(self, *ids: str | None) -> None:
        """End what nothing came of, or what has been replaced; where that fails it ends by itself."""
        for delegation in ids:
            if delegation is None:
                continue
            try:
                await self._known.end(delegation)
            except (DelegationRejected, ServerUnavailable) as error:
                logger.warning("a delegation that is not needed stays until its end: %s", error)

    @asynccontextmanager
    async def ending_on_error(self) -> AsyncIterator[list[str]]:
        """Collect delegations; they are ended again where the block fails."""
        begun: list[str] = []
        try:
            yield begun
        except BaseException:
            await self.end(*begun)
            raise


def _token_of_person(workflow: AnyWorkflow, caller: Caller, http_request: Request) -> str:
    principal, credentials = caller.principal, read_credentials(http_request)
    if principal.is_service or principal.actors or credentials is None:
        who = "a service" if principal.is_service else f"{', '.join(principal.actors)} for somebody"
        raise Problem(
            403,
            "person-needed",
            "Only a person can start this",
            f"{workflow.name} acts for the person who starts it, and this is {who}; sign in as one: evs auth login",
        )
    return credentials.token


def _problem_of(workflow: AnyWorkflow, error: Exception) -> Problem:
    """What is in the way, and what the caller has to do."""
    match error:
        case ConsentNeeded(consent_uri=uri):
            wanted = "; ".join(f"{each.resource} ({', '.join(each.scope)})" for each in workflow.acts_for_starter)
            detail = f"{workflow.name} acts for you at {wanted}: allow that once at {uri} and start it again"
            return Problem(403, "consent-needed", "Allow it first", detail, consent_uri=uri)
        case DelegationRejected(detail=why):
            detail = f"{workflow.name} cannot act for you: {why.rstrip('.')}"
            return Problem(403, "delegation-refused", "It may not act for you", detail)
    detail = f"{workflow.name} acts for you, and the AuthService does not answer; try again in a moment"
    headers = {"retry-after": RETRY_AFTER_SECONDS}
    return Problem(503, "sign-in-unavailable", "The AuthService does not answer", detail, headers=headers)
