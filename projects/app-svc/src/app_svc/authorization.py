"""The door of the REST API: every guarded route checks its caller before a byte of the body is read.

And once more when all of it is there: whoever is put out may hold a body back for hours, and must not act with it.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app_svc.json_request import JsonRequest
from app_svc.permissions import MANAGE, RULES, Rule
from lib_auth.guard import Guard
from lib_auth.principal import Principal, with_included
from lib_events.problem import Problem
from lib_workflows import Principal as RunPrincipal
from lib_workflows.reading.queries import RunView

SAFE = frozenset(("GET", "HEAD"))  # they have no body to wait for

type Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and whether this operation shows them everybody's things or their own."""

    principal: Principal
    sees_all: bool

    @property
    def subject(self) -> str:
        """The subject of the token: whose runs are one's own."""
        return self.principal.subject

    def owns(self, run: RunView) -> bool:
        """Whether it is the caller's own run."""
        return run.principal is not None and run.principal.subject == self.subject

    def may_see(self, run: RunView) -> bool:
        """Whether the run is visible to the caller."""
        return self.sees_all or self.owns(run)

    @property
    def addressees(self) -> list[str]:
        """What an approval may name to mean the caller."""
        return [f"user:{self.subject}", *(f"role:{role}" for role in with_included(self.principal.roles))]

    def as_run_principal(self) -> RunPrincipal:
        """The caller as runs and decisions remember them."""
        principal = self.principal
        return RunPrincipal(
            principal.subject, principal.username or principal.client_id, tuple(sorted(principal.roles))
        )


def rule_of(method: str, path: str) -> Rule:
    """The rule of a route; a route without one must not exist."""
    try:
        return RULES[method, path]
    except KeyError:
        raise LookupError(f"route {method} {path} must have a rule in permissions.RULES, got none; add it") from None


def guarded_route(guard: Guard) -> type[APIRoute]:
    """Return the class of routes that let in whom `RULES` lets in."""

    class GuardedRoute(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            super().__init__(path, endpoint, **options)
            self.rules = {method: rule_of(method, path) for method in self.methods or ()}

        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def check_then_handle(request: Request) -> Response:
                rule, takes_body = self.rules[request.method], self.body_field is not None
                return await handle(await let_in(guard, request, rule, takes_body=takes_body))

            return check_then_handle

    return GuardedRoute


async def let_in(guard: Guard, request: Request, rule: Rule, *, takes_body: bool) -> JsonRequest:
    """Return the request with its body read and its caller in `state`; raises the `Problem` 401, 403, 415 or 503."""
    principal = await guard.authenticate(request)
    request.state.caller = admit(guard, principal, rule)
    strict = JsonRequest(request.scope, request.receive)
    if takes_body:
        strict.check_media_type()
    if request.method not in SAFE:
        await strict.body()
        await guard.confirm(request)
    return strict


def admit(guard: Guard, principal: Principal, rule: Rule) -> Caller:
    """Return the caller as `rule` lets them in; raises the `Problem` 403."""
    sees_all = rule.all is not None and rule.all.held_by(principal)
    if not sees_all:
        guard.authorise(principal, scope=rule.own.scope, role=rule.own.role)
    return Caller(principal, sees_all=sees_all or rule.own == MANAGE)


async def _caller(request: Request) -> Caller:
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:  # a route that is no GuardedRoute asks for its caller
        raise Problem(500, detail="This route is not guarded.")
    return caller


CallerOf = Annotated[Caller, Depends(_caller)]
