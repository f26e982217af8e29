"""A request whose body is JSON as RFC 8259 has it, or is refused with the reason."""

from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from lib_events.http.limits import first_header
from lib_events.problem import Problem


class JsonRequest(Request):
    """Reads strictly: what the standard library also takes, such as NaN and half characters, no history can keep."""

    def check_media_type(self) -> None:
        """Raise the `Problem` 415 for a body that is sent as something else; none at all is for others to judge."""
        given = first_header(self.scope, b"content-type")
        if given.partition(";")[0].strip().lower() != "application/json" and not self._is_empty:
            detail = f"content type must be application/json, got {given[:80]!r}; send the header Content-Type"
            raise Problem(415, "not-json", "The body is not sent as JSON", detail)

    @property
    def _is_empty(self) -> bool:
        return self.headers.get("content-length", "0") == "0" and "transfer-encoding" not in self.headers

    async def json(self) -> Any:
        """Return the decoded body; raises the `Problem` 422."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            problem = f"body must be JSON (RFC 8259): {error}"
            raise Problem(
                422, "invalid-input", "The body is not JSON", problem, errors=[{"pointer": "", "detail": problem}]
            ) from error
