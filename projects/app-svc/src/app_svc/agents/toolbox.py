"""All tools of this service: which of them somebody may call, and what calling one gives."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from app_svc.agents.run_tools import run_tools
from app_svc.agents.tool import ANSWER_CHARACTERS, Call, Told, Tool, as_text, explained
from app_svc.agents.workflow_tools import PREFIX, workflow_tools
from app_svc.approvals import ApprovalRoutes
from app_svc.authorization import admit, rule_of
from app_svc.problems import problem_of
from app_svc.runs import RunRoutes
from app_svc.updates import UpdateRoutes
from lib_auth.guard import Guard
from lib_auth.principal import Principal
from lib_events.problem import request_id
from lib_workflows import Registry

logger = logging.getLogger(__name__)

CLIENTS_FAULTS = range(400, 500)


class ToolUnknown(LookupError):
    """There is no tool of that name."""


class Toolbox:
    """Finds and calls tools, for whom their rules let in."""

    def __init__(self, guard: Guard, tools: Iterable[Tool]) -> None:
        self._guard = guard
        self._tools = {tool.name: tool for tool in tools}
        self._starting = rule_of("POST", "/v1/runs")

    def tools_of(self, principal: Principal) -> Sequence[Tool]:
        """The tools that `principal` may call."""
        return [tool for tool in self._tools.values() if tool.is_for(principal)]

    def schema(self, name: str) -> Mapping[str, Any] | None:
        """The schema of a tool's arguments."""
        tool = self._tools.get(name)
        return None if tool is None else tool.input_schema

    async def call(self, name: str, arguments: Mapping[str, Any], principal: Principal, request: Request) -> Told:
        """Call a tool; what is in the way is told as its answer. Raises `ToolUnknown`."""
        try:
            tool = self._find(name, principal)
            caller = admit(self._guard, principal, tool.rule)
            return _bounded(await tool.call(Call(tool.read(arguments), caller, request)))
        except ToolUnknown:
            raise
        except Exception as error:  # noqa: BLE001 - what it is to the agent one map says, as for REST
            return _refused(error, name, request)

    def _find(self, name: str, principal: Principal) -> Tool:
        if name.startswith(PREFIX):
            admit(self._guard, principal, self._starting)  # who may start nothing does not learn what there is
        tool = self._tools.get(name)
        if tool is None:
            raise ToolUnknown(f"there is no tool {name[:100]!r}; list the tools")
        return tool


def make_toolbox(
    guard: Guard, registry: Registry, runs: RunRoutes, updates: UpdateRoutes, approvals: ApprovalRoutes
) -> Toolbox:
    """Return the tools of every workflow, and those beside them."""
    return Toolbox(guard, [*workflow_tools(registry, runs), *run_tools(runs, updates, approvals)])


def _bounded(told: Told) -> Told:
    """What goes out: JSON through and through, and not more of it than a model can use."""
    text = as_text(told.document)
    if len(text) > ANSWER_CHARACTERS:
        detail = f"the answer has {len(text)} characters, more than {ANSWER_CHARACTERS}; ask for less, or ask REST"
        return Told({"problem": detail}, has_failed=True)
    return Told(from_json(text), told.has_failed)


def _refused(error: Exception, name: str, request: Request) -> Told:
    problem = problem_of(error)
    if problem.status not in CLIENTS_FAULTS:
        identifier = request_id(request)
        logger.error("tool %s failed: %s", name[:100], error, exc_info=error, extra={"correlation_id": identifier})
    fields = {key: value for key, value in problem.fields.items() if key != "errors"}
    return Told({"problem": explained(problem), "type": problem.type} | fields, has_failed=True)
