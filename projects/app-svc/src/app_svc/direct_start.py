"""`POST /v1/runs` without FastAPI's layers, which would cost as much as starting the run.

The route in `runs` describes it, and this answers as that would: the same checks by the same types, the same command.
"""

from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app_svc.authorization import let_in, rule_of
from app_svc.documents import RunDocument
from app_svc.json_request import JsonRequest
from app_svc.run_start import StartBody
from app_svc.runs import IdempotencyKey, Prefer, RunRoutes
from lib_auth.guard import Guard
from lib_events.problem import invalid_input

START_PATH: Final = "/v1/runs"
BODY: TypeAdapter[StartBody] = TypeAdapter(StartBody)
HEADERS: tuple[tuple[str, TypeAdapter[str | None]], ...] = (
    ("idempotency-key", TypeAdapter(IdempotencyKey)),
    ("prefer", TypeAdapter(Prefer)),
)
DOCUMENT: TypeAdapter[RunDocument] = TypeAdapter(RunDocument)


class DirectStart:
    """The endpoint: a request comes in, the answer of `RunRoutes.start` goes out."""

    def __init__(self, guard: Guard, runs: RunRoutes) -> None:
        self._guard = guard
        self._start = runs.start
        self._rule = rule_of("POST", START_PATH)

    async def __call__(self, request: Request) -> Response:
        """Start a run; raises a `Problem`."""
        asked = await let_in(self._guard, request, self._rule, takes_body=True)
        body, idempotency_key, prefer = await _read(asked)
        answer = Response(status_code=202)
        run = await self._start(body, asked.state.caller, asked, answer, idempotency_key=idempotency_key, prefer=prefer)
        answer.body = DOCUMENT.dump_json(run, by_alias=True)
        answer.headers["content-length"] = str(len(answer.body))
        answer.headers["content-type"] = "application/json"
        return answer


async def _read(request: JsonRequest) -> tuple[StartBody, str | None, str | None]:
    """The body and the headers that count; raises the `Problem` 422 that names all that is wrong with them."""
    wrong: list[dict[str, Any]] = []
    idempotency_key, prefer = (
        _valid(adapter, request.headers.get(name), ("header", name), wrong) for name, adapter in HEADERS
    )
    if await request.body():
        body = _valid(BODY, await request.json(), ("body",), wrong)
    else:
        body = None
        wrong.append({"loc": ("body",), "msg": "Field required"})
    if wrong or body is None:
        raise invalid_input(wrong)
    return body, idempotency_key, prefer


def _valid[T](adapter: TypeAdapter[T], given: object, place: tuple[str, ...], wrong: list[dict[str, Any]]) -> T | None:
    try:
        return adapter.validate_python(given, from_attributes=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        wrong += [{"loc": (*place, *each["loc"]), "msg": each["msg"]} for each in found]
        return None
