"""Access tokens for the people who started runs, and the end of what runs may do for them when they have ended."""

import logging
from functools import partial
from typing import Final

from app_svc import delegations
from app_svc.kept_tokens import KeptTokens, Wanted
from lib_auth.access_token import TokenVerifier
from lib_auth.delegations import DelegationRejected, Delegations, Rejection
from lib_auth.oauth_error import ServerUnavailable
from lib_auth.tokens import TokenSet
from lib_events.clock import Clock, SystemClock
from lib_events.database import Database
from lib_events.lifecycle import Loop
from lib_workflows.authoring.delegation import TokenRequest
from lib_workflows.errors import DelegationRefused, Refusal, TokensUnavailable

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0

# What the AuthService says of a delegation, as a step hears it, with what to do.
REFUSALS: Final[dict[Rejection, tuple[Refusal, str]]] = {
    "expired": (
        "expired",
        "retry the run as the person who started it, or let its workflow declare that it lasts longer",
    ),
    "withdrawn": ("withdrawn", "the person who started it has to allow it again, and retry the run"),
    "unknown": ("withdrawn", "the person who started it has to retry the run"),
    "token": ("withdrawn", "the person who started it has to retry the run"),
    "person": ("person", "start it as somebody who can sign in"),
    "scope": ("scope", "declare no more than the run that its starter began declares, and the service knows"),
    "target": ("scope", "let the service's entry at the AuthService name evs-app among its actors"),
}


class StarterTokens:
    """The engine's `TokenSource`."""

    def __init__(
        self, database: Database, known: Delegations, verifier: TokenVerifier, clock: Clock | None = None
    ) -> None:
        """`verifier` says whether a token that was given before was revoked."""
        self._database = database
        self._known = known
        self._kept = KeptTokens(verifier)
        self._clock = clock or SystemClock()

    async def __call__(self, wanted: TokenRequest) -> str:
        """An access token for whoever started the run; raises `DelegationRefused` and `TokensUnavailable`."""
        held = await self._database.read(delegations.find, wanted.run_id)
        if held is None:
            raise DelegationRefused(
                "none",
                f"run {wanted.run_id} must have been started by a person, or by a schedule that acts for one, to act "
                "for them; start or retry it as that person",
            )
        if held.expires_at < self._clock.micros():
            raise _refused(wanted, "expired", "the delegation has expired")
        if held.withdrawn_at is not None:
            return (await self._ask(held, wanted)).access_token
        same = Wanted(held.delegation, wanted.resource, frozenset(wanted.scope))
        return await self._kept.get(same, partial(self._ask, held, wanted))

    async def _ask(self, held: delegations.Held, wanted: TokenRequest) -> TokenSet:
        try:
            return await self._known.token(held.delegation, resource=wanted.resource, scope=wanted.scope)
        except DelegationRejected as rejected:
            raise _refused(wanted, rejected.reason, rejected.detail) from rejected
        except ServerUnavailable as error:
            raise TokensUnavailable(f"the AuthService must answer to act for somebody: {error}") from error


def _refused(wanted: TokenRequest, rejection: Rejection, detail: str) -> DelegationRefused:
    reason, advice = REFUSALS[rejection]
    return DelegationRefused(
        reason, f"run {wanted.run_id} may not act at {wanted.resource}: {detail.rstrip('.')}; to go on, {advice}"
    )


class DelegationEnds(Loop):
    """Ends at the AuthService what no run or schedule needs any more.

    It looks rather than listens: ended runs are many, those that act for somebody few, and an end that was missed
    would let something act on.
    """

    def __init__(self, database: Database, known: Delegations, clock: Clock | None = None) -> None:
        super().__init__(name="delegations' ends")
        self._database = database
        self._known = known
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Look, again and again; an AuthService that does not answer is asked again."""
        silent = False
        while True:
            try:
                await self._end_unneeded()
                silent = False
            except ServerUnavailable as error:
                if not silent:
                    logger.warning("delegations cannot be ended now: %s", error)
                silent = True
            await self.pause(PAUSE_SECONDS)

    async def _end_unneeded(self) -> None:
        while found := await self._database.read(delegations.unneeded):
            for held in await self._database.transact(delegations.end, found, self._clock.micros()):
                await self._end(held)

    async def _end(self, held: delegations.Held) -> None:
        try:
            await self._known.end(held.delegation)
        except DelegationRejected as rejected:
            logger.warning("the delegation of %s %s is not ours to end: %s", held.kind, held.holder, rejected)
        await self._database.transact(delegations.forget, held)
