"""Errors over HTTP as RFC 9457 problem documents: one exception, one map to responses."""

import json
import logging
import sys
import uuid
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = "2"

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:evs:problem:"
REQUEST_PREFIX = "urn:evs:request:"


class Problem(HTTPException):
    """An error whose reader is the client: every field of it is public.

    `type` is a short name (`run-not-found`); without one it is `about:blank` and the status says it all
    (RFC 9457 section 4.2.1). `fields` are extension members.
    """

    def __init__(
        self,
        status: int,
        type: str | None = None,  # noqa: A002 - the member's name in RFC 9457
        title: str | None = None,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(status_code=status, detail=detail, headers=headers)
        self.status = status
        self.type = "about:blank" if type is None else type if ":" in type else TYPE_PREFIX + type
        self.title = title or HTTPStatus(status).phrase
        self.fields = fields

    def body(self, instance: str) -> dict[str, Any]:
        """The problem document; `instance` names the request."""
        members = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return self.fields | members | {"instance": instance}


def invalid_input(errors: Iterable[Mapping[str, Any]], *, within: tuple[str | int, ...] = ()) -> Problem:
    """Turn pydantic's errors into a 422 that names each field, and never repeats what was sent."""
    found = [_place((*within, *error["loc"])) | {"detail": str(error["msg"])} for error in errors]
    first = found[0] if found else {"detail": "invalid"}
    return Problem(
        422,
        "invalid-input",
        "The input is not valid",
        f"{first.get('pointer') or first.get('parameter') or 'The input'}: {first['detail']}",
        errors=found,
    )


def request_id(connection: HTTPConnection) -> str:
    """The id of this request, the same in logs and problem documents."""
    state = connection.scope.setdefault("state", {})
    identifier: str = state.setdefault("request_id", uuid.uuid4().hex)
    return identifier


def problem_response(problem: Problem, instance: str) -> Response:
    """Encode `problem` as `application/problem+json`."""
    # What JSON can say and UTF-8 cannot, half of a surrogate pair, stays as JSON says it.
    content = json.dumps(problem.body(instance), ensure_ascii=False, default=str).encode(errors="backslashreplace")
    # A cached error outlives its cause.
    headers = {"cache-control": "no-store"} | dict(problem.headers or {})
    return Response(content, problem.status, headers=headers, media_type=MEDIA_TYPE)


def install_problem_handlers(app: Starlette, *, unavailable: Iterable[type[Exception]] = ()) -> None:
    """Make every error of `app` (Starlette or FastAPI) a problem document; to `unavailable` ones 503."""
    for kind in unavailable:
        app.add_exception_handler(kind, answer_unavailable)
    app.add_exception_handler(HTTPException, answer_error)
    app.add_exception_handler(ClientDisconnect, answer_error)
    app.add_exception_handler(Exception, answer_error)
    # FastAPI is not ours to import: an application that uses it has already done so.
    fastapi = sys.modules.get("fastapi.exceptions")
    if fastapi is not None:
        app.add_exception_handler(fastapi.RequestValidationError, answer_error)


async def answer_unavailable(request: Request, error: Exception) -> Response:
    """Exception handler: the problem document of what may well succeed later; operators read why in the log."""
    identifier = request_id(request)
    logger.error("answering 503: %s", error, extra={"correlation_id": identifier})
    return problem_response(not_now(error), REQUEST_PREFIX + identifier)


def not_now(error: Exception) -> Problem:
    """The problem of what may well succeed later."""
    return Problem(503, "try-again", "Not now", str(error), headers={"retry-after": RETRY_AFTER_SECONDS})


async def answer_error(request: Request, error: Exception) -> Response:
    """Exception handler: the problem document of an error."""
    problem = problem_of(error)
    identifier = request_id(request)
    if not isinstance(error, HTTPException) and problem.status >= 500:
        logger.error("request failed", exc_info=error, extra={"correlation_id": identifier})
    return problem_response(problem, REQUEST_PREFIX + identifier)


def problem_of(error: Exception) -> Problem:
    """The problem that a client is told of any error; of ours it learns that there was one, and the log the rest."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        detail = error.detail if isinstance(error.detail, str) else HTTPStatus(error.status_code).phrase
        return Problem(error.status_code, detail=detail, headers=error.headers)
    if isinstance(error, ClientDisconnect):  # nobody reads this; that somebody hung up is no failure of ours to log
        return Problem(400, detail="The request ended before it was whole.")
    if callable(errors := getattr(error, "errors", None)) and type(error).__name__ == "RequestValidationError":
        return invalid_input(errors())
    return Problem(500, detail="The server failed; its log has the reason under this request id.")


def _place(location: tuple[str | int, ...]) -> dict[str, str]:
    """A JSON Pointer (RFC 6901) to a field of the body; a parameter of the query, path or header by its name."""
    place, *parts = location or ("body",)
    if place != "body":
        return {"parameter": str(parts[0] if parts else place)}
    return {"pointer": "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)}
