"""Calls the services of a product as somebody; every refusal becomes a clear failure with its exit code."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed, not_allowed, usage
from cli_proj.http_client import TIMEOUT_SECONDS
from cli_proj.identity import Identity
from cli_proj.sse import ServerSentEvent, read_events
from lib_auth.oauth_error import ServerUnavailable

SILENCE_SECONDS = 45.0  # a stream that says nothing, not even a heartbeat, for this long is dead
OPENED = "cli.opened"
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 10.0)
PROBLEM_CODES = {
    400: ExitCode.USAGE,
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    410: ExitCode.NOT_FOUND,
    412: ExitCode.CONFLICT,
    413: ExitCode.USAGE,
    415: ExitCode.USAGE,
    422: ExitCode.USAGE,
}

type Value = str | int | list[str] | None
type Query = Mapping[str, Value]


class Service:
    """One service of a product, called as `identity`."""

    def __init__(self, name: str, url: str, *, http: httpx.AsyncClient, identity: Identity, resource: str = "") -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._http = http
        self._identity = identity
        self._resource = resource

    async def get(self, path: str, **query: Value) -> Any:
        """Return what is at `path`."""
        return await self.call("GET", path, query=query)

    async def post(self, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Any:
        """Post `body` as JSON."""
        return await self.call("POST", path, body=body, headers=headers)

    async def send_bytes(self, path: str, content: bytes, media_type: str) -> Any:
        """Post a body that is already written."""
        return await self.call("POST", path, content=content, headers={"content-type": media_type})

    async def pages(self, path: str, *, limit: int, **query: Value) -> list[Any]:
        """Return up to `limit` items of a list, asking for as many pages as that takes."""
        if limit < 1:
            raise usage(f"--limit must be 1 or more, got {limit}")
        items: list[Any] = []
        cursor: str | None = None
        while len(items) < limit:
            page = await self.get(path, limit=min(limit - len(items), 100), cursor=cursor, **query)
            items += page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return items[:limit]

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make one request, a second time with a fresh token if the first one is refused."""
        request = self._build(method, path, params=_given(query), json=body, content=content, headers=headers)
        token = await self._identity.access_token(self._resource)
        answer = await self._send(request, token)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            answer = await self._send(request, await self._identity.renew(token, self._resource))
        if not answer.is_success:
            raise failure_of(answer, service=self.name)
        return _content_of(answer, self.name)

    async def follow(
        self, path: str, *, query: Query | None = None, after: str | None = None
    ) -> AsyncGenerator[ServerSentEvent]:
        """Yield the events of a stream for ever; a cut stream goes on after its last event (Last-Event-ID).

        Each time the stream opens, an event of type `OPENED` comes first: what was missed can be asked for then.
        """
        failures = 0
        while True:
            try:
                async for event in self._stream(path, query, after):
                    failures = 0
                    if event is not None:
                        after = event.id or after
                        yield event
            except (httpx.TransportError, Unavailable, ServerUnavailable) as error:
                if failures == len(RECONNECT_SECONDS):
                    raise unreachable(self.name, self.url, error) from error
            await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _stream(self, path: str, query: Query | None, after: str | None) -> AsyncIterator[ServerSentEvent | None]:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if after is not None:
            headers["last-event-id"] = after
        async with self._open(path, query, headers) as answer:
            yield ServerSentEvent(after, OPENED, "")
            async for event in read_events(answer.aiter_lines()):
                yield event

    @asynccontextmanager
    async def _open(self, path: str, query: Query | None, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """Open a stream, with a fresh token if the first one is refused."""
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        request = self._build("GET", path, params=_given(query), headers=headers, timeout=timeout)
        token = await self._identity.access_token(self._resource)
        answer = await self._send(request, token, stream=True)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            await answer.aclose()
            answer = await self._send(request, await self._identity.renew(token, self._resource), stream=True)
        try:
            if not answer.is_success:
                await answer.aread()
                if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise _unavailable(answer, self.name)
                raise failure_of(answer, service=self.name)
            yield answer
        finally:
            await answer.aclose()

    def _build(self, method: str, path: str, **parts: Any) -> httpx.Request:
        try:
            return self._http.build_request(method, self.url + path, **parts)
        except ValueError as error:  # NaN, half a character, a header with more than ASCII
            raise _cannot_be_sent(error) from error

    async def _send(self, request: httpx.Request, token: str, *, stream: bool = False) -> httpx.Response:
        request.headers.update(self._identity.headers(token, request.method, str(request.url)))
        try:
            return await self._http.send(request, stream=stream)
        except httpx.TimeoutException as error:
            text = f"the {self.name} did not answer within {TIMEOUT_SECONDS:g} s"
            raise CommandFailed(text, hint="evs status", code=ExitCode.TIMEOUT) from error
        except httpx.LocalProtocolError as error:
            raise _cannot_be_sent(error) from error
        except httpx.TransportError as error:
            if stream:
                raise
            raise unreachable(self.name, self.url, error) from error


class Unavailable(CommandFailed):
    """The service does not answer, or says that it cannot serve now: later it may."""


def unreachable(name: str, url: str, error: Exception) -> Unavailable:
    """The failure for a service that does not answer."""
    return Unavailable(
        f"the {name} at {url} does not answer: {str(error) or type(error).__name__}",
        hint="evs status says what runs; evs up starts it; evs doctor looks for the reason",
    )


def failure_of(answer: httpx.Response, *, service: str) -> CommandFailed:
    """Turn a refusal (RFC 9457, or whatever came) into a failure."""
    if answer.status_code in (502, 503, 504):
        return _unavailable(answer, service)
    problem = _problem_of(answer)
    code = PROBLEM_CODES.get(answer.status_code, ExitCode.FAILED)
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return not_allowed(f"the {service} refuses the token: {problem['detail']}", hint="evs auth login")
    faults = [
        f"\n  {fault.get('pointer') or fault.get('parameter') or 'input'}: {fault.get('detail')}"
        for fault in problem.get("errors", [])
        if isinstance(fault, dict)
    ]
    text = str(problem["detail"] or problem["title"])
    if len(faults) > 1:
        text = f"{problem['title']}:{''.join(faults)}"
    return CommandFailed(text, hint=_hint(answer, problem), code=code)


def path_of(*names: str) -> str:
    """Return the path of something; whatever a name contains, it stays one segment."""
    if "" in names:
        raise usage("a name or id must not be empty")
    for name in {".", ".."}.intersection(names):
        # RFC 3986 section 5.2.4: on its way it would be taken out, and the path be that of something else.
        raise usage(f"a name or id must not be {name}")
    return "/v1/" + "/".join(quote(name, safe="", errors="surrogateescape") for name in names)


def _content_of(answer: httpx.Response, service: str) -> Any:
    try:
        return answer.json() if answer.content else None
    except ValueError as error:
        kind = answer.headers.get("content-type", "something else")
        text = f"{answer.request.url} must answer as the {service} does, in JSON, got {kind}"
        raise CommandFailed(text, hint="evs context list shows which product the commands talk to") from error


def _cannot_be_sent(error: Exception) -> CommandFailed:
    return usage(f"this cannot be sent: {error}", hint="correct what was given on the command line or in EVS_*")


def _unavailable(answer: httpx.Response, service: str) -> Unavailable:
    return Unavailable(f"the {service} cannot serve now: {_problem_of(answer)['detail']}", hint="evs status; try again")


def _problem_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except (ValueError, UnicodeDecodeError):
        body = None
    problem = body if isinstance(body, dict) else {}
    title = problem.get("title") or f"{answer.request.url} answered {answer.status_code}"
    return problem | {"title": title, "detail": problem.get("detail") or problem.get("error_description") or title}


def _hint(answer: httpx.Response, problem: Mapping[str, Any]) -> str | None:
    if isinstance(consent_uri := problem.get("consent_uri"), str):
        return f"open {consent_uri} in a browser and allow it, once; then do the same again"
    if answer.status_code == httpx.codes.FORBIDDEN:
        return "evs auth status says who you are; evs auth login signs in somebody else; evs auth request-role ROLE"
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        instance = problem.get("instance")
        return f"the service's log has the reason under {instance}" if instance else "evs status"
    return None


def _given(query: Query | None) -> dict[str, str | int | list[str]]:
    return {name: value for name, value in (query or {}).items() if value is not None}
