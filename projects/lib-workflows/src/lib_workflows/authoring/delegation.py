"""What a workflow may do for the person who started it: declared beside it, asked for by its steps, never kept.

A step asks for an access token; who grants it is no business of this library: a `TokenSource` is given to the engine
where the parts are put together. What is not declared is never asked for, so that people can read beforehand what a
workflow will do in their name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from lib_workflows.errors import DefinitionError, DelegationRefused, WorkflowsError
from lib_workflows.values.durations import check_seconds
from lib_workflows.values.failure import encode_record, record_of

WEEK = timedelta(days=7)
LONGEST = timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """What a workflow may do at one service for whoever started it.

    `resource` is the service's name in tokens (RFC 8707), `scope` what may be done there, `lasts` for how long after
    the start at most, up to 90 days: it ends with the run in any case. Raises `DefinitionError`.
    """

    resource: str
    scope: tuple[str, ...]
    lasts: timedelta = WEEK

    def __post_init__(self) -> None:
        parts = urlsplit(self.resource) if isinstance(self.resource, str) else None
        if parts is None or not parts.scheme or parts.fragment:
            raise DefinitionError(f"resource of Delegation must be an absolute URI, got {self.resource!r:.100}")
        words = self.scope if isinstance(self.scope, tuple) else ()
        if not words or not all(isinstance(word, str) and word and not word.split()[1:] for word in words):
            raise DefinitionError(
                f'scope of Delegation must be names, such as ("orders:read",), got {self.scope!r:.100}'
            )
        if check_seconds(self.lasts, "lasts of Delegation") < 1 or self.lasts > LONGEST:
            raise DefinitionError(f"lasts of Delegation must be a second to 90 days, got {self.lasts}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """An access token that a step asks for; what it asks for is declared."""

    run_id: str
    workflow: str
    resource: str
    scope: tuple[str, ...]


# Answers with an access token for the person who started the run. Raises `DelegationRefused`, where asking again would
# not help, or `TokensUnavailable`.
type TokenSource = Callable[[TokenRequest], Awaitable[str]]


@dataclass(slots=True, kw_only=True)
class StarterTokens:
    """The tokens one attempt of a step may have; what it was given must not get into the history."""

    source: TokenSource | None
    run_id: str
    workflow: str
    declared: tuple[Delegation, ...]
    given: list[str] = field(default_factory=list, repr=False)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop, repr=False)

    async def ask(self, resource: str | None, scope: Sequence[str]) -> str:
        """An access token for `resource` (None: the only one declared), for all of its scope unless less is named."""
        delegation = self._declared(resource)
        if isinstance(scope, str) or not set(scope) <= set(delegation.scope):
            raise DelegationRefused(
                "undeclared",
                f"scope must be of {', '.join(delegation.scope)}, as workflow {self.workflow} declares for "
                f"{delegation.resource}, got {scope!r:.100}; ask for less, or declare it",
            )
        if self.source is None:
            raise DelegationRefused(
                "unsupported",
                f"this engine must have a source of tokens for workflow {self.workflow}, got none; run it in the "
                "AppService, or give Engine.open(…, tokens=…)",
            )
        wanted = TokenRequest(
            run_id=self.run_id,
            workflow=self.workflow,
            resource=delegation.resource,
            scope=tuple(scope) or delegation.scope,
        )
        token = await self.source(wanted)
        self.given.append(token)
        return token

    def ask_from_thread(self, resource: str | None, scope: Sequence[str]) -> str:
        """The same for a step that runs in a thread, which waits."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not None:
            raise WorkflowsError("a step that is an async def must await access_token(), not wait_access_token()")
        return asyncio.run_coroutine_threadsafe(self.ask(resource, scope), self._loop).result()

    def _declared(self, resource: str | None) -> Delegation:
        found = [
            each for each in self.declared if resource is None or each.resource.rstrip("/") == resource.rstrip("/")
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(each.resource for each in self.declared)
        raise DelegationRefused(
            "undeclared",
            f"resource must be one that workflow {self.workflow} declares ({names}), got {resource!r:.100}; "
            "add it to acts_for_starter",
        )

    def check(self, text: str | None, what: str) -> None:
        """Raise `TokenKept` where a token would be kept in the history, where others read it."""
        if text is not None and any(token in text for token in self.given):
            raise TokenKept(what)

    def without_tokens(self, error: BaseException) -> BaseException:
        """The error as it may be kept: another one in its place where it tells a token."""
        if isinstance(error, Exception) and any(token in encode_record(record_of(error)) for token in self.given):
            return TokenKept(f"its error, a {type(error).__name__}")
        return error


class TokenKept(WorkflowsError):
    """A step would have left an access token in the history, where others read it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"a step must keep its access token to itself, got it in {what}; leave it out")
        self.what = what


def check_delegations(given: Any, workflow: str) -> tuple[Delegation, ...]:
    """What a workflow declares in `acts_for_starter`; raises `DefinitionError`."""
    declared = (given,) if isinstance(given, Delegation) else tuple(given)
    if not all(isinstance(each, Delegation) for each in declared):
        raise DefinitionError(f"acts_for_starter of workflow {workflow} must be Delegation(…), got {given!r:.100}")
    if len({each.resource.rstrip("/") for each in declared}) != len(declared):
        raise DefinitionError(
            f"acts_for_starter of workflow {workflow} must name each resource once; join their scopes"
        )
    return declared
