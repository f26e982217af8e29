"""The AppService as one signed-in person sees it: its REST API with their token, renewed once on a 401."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx

from gui_proj.session import AuthServiceDown, Session, Sessions

TIMEOUT: Final = httpx.Timeout(20.0, connect=3.0)
STREAM_TIMEOUT: Final = httpx.Timeout(60.0, connect=3.0)  # the feed's heartbeats come more often


class AppServiceDown(Exception):
    """The AppService did not answer; it may be starting."""


class AppServiceRefused(Exception):
    """The AppService answered with a problem document (RFC 9457)."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {body.get('title', '')}: {body.get('detail', '')}")
        self.status = status
        self.title = str(body.get("title") or "The AppService refused")
        self.detail = str(body.get("detail") or "")
        self.body = body

    @property
    def kind(self) -> str:
        """What went wrong in a word: the end of the problem's type."""
        return str(self.body.get("type") or "").rpartition(":")[2]

    @property
    def field_errors(self) -> dict[str, str]:
        """Sentences by JSON Pointer into the run's input; what is about no field stands at the root."""
        found: dict[str, str] = {}
        for error in self.body.get("errors") or ():
            pointer = str(error.get("pointer") or error.get("parameter") or "")
            if pointer == "/input" or pointer.startswith("/input/"):
                pointer = pointer.removeprefix("/input")
            found[pointer] = str(error.get("detail") or "is not valid")
        return found


class AppService:
    """Speaks HTTP to the AppService for whoever's session is given."""

    def __init__(self, http: httpx.AsyncClient, url: str, sessions: Sessions) -> None:
        self.http = http
        self.url = url
        self.sessions = sessions

    async def get(self, session: Session, path: str, **parameters: Any) -> Any:
        given = {name: value for name, value in parameters.items() if value not in (None, "", [])}
        return await self._json(session, "GET", self.url + path, params=given)

    async def post(
        self, session: Session, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        return await self._json(session, "POST", self.url + path, json=body, headers=headers)

    async def put(self, session: Session, path: str, body: Any) -> Any:
        return await self._json(session, "PUT", self.url + path, json=body)

    async def patch(self, session: Session, path: str, body: Any) -> Any:
        return await self._json(session, "PATCH", self.url + path, json=body)

    async def delete(self, session: Session, path: str) -> None:
        await self._json(session, "DELETE", self.url + path)

    async def ask_issuer(self, session: Session, method: str, url: str, body: Any = None) -> Any:
        """A request to the AuthService on behalf of the person, under the same rules."""
        try:
            return await self._json(session, method, url, json=body)
        except AppServiceDown as error:
            raise AuthServiceDown(str(error)) from error

    async def _json(self, session: Session, method: str, url: str, **options: Any) -> Any:
        answer = await self._send(session, method, url, **options)
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _refusal(answer)

    async def _send(self, session: Session, method: str, url: str, **options: Any) -> httpx.Response:
        """The OAuth workflow's steps 4 and 5: with the token; on a 401 exactly one refresh and one retry."""
        answer = await self._once(session, method, url, **options)
        if answer.status_code == 401:
            await self.sessions.renew(session, _token_of(answer.request))
            answer = await self._once(session, method, url, **options)
        if answer.status_code == 401:
            raise _refused_anew(url)
        return answer

    async def _once(
        self, session: Session, method: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        try:
            return await self.http.request(
                method,
                url,
                headers={**_bearer(session), **(headers or {})},
                timeout=TIMEOUT,
                **options,
            )
        except httpx.HTTPError as error:
            raise AppServiceDown(str(error)) from error

    @asynccontextmanager
    async def stream(self, session: Session, path: str) -> AsyncGenerator[httpx.Response]:
        """An event stream; it ends with its token, and whoever follows it opens the next one."""
        for attempt in (1, 2):
            token = session.tokens.access_token
            try:
                async with self.http.stream(
                    "GET",
                    self.url + path,
                    headers={**_bearer(session), "Accept": "text/event-stream"},
                    timeout=STREAM_TIMEOUT,
                ) as answer:
                    if answer.is_success:
                        yield answer
                        return
                    await answer.aread()
            except httpx.HTTPError as error:
                raise AppServiceDown(str(error)) from error
            if answer.status_code != 401:
                raise _refusal(answer)
            if attempt == 1:
                await self.sessions.renew(session, token)
        raise _refused_anew(self.url + path)


def _refused_anew(url: str) -> AppServiceDown:
    """Whether a session is over is the AuthService's to say, and it has just said that it is not."""
    return AppServiceDown(f"{url} refuses a token that the AuthService has just given")


def _bearer(session: Session) -> dict[str, str]:
    return {"Authorization": f"Bearer {session.tokens.access_token}"}


def _token_of(request: httpx.Request) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


def _refusal(answer: httpx.Response) -> AppServiceRefused:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    return AppServiceRefused(answer.status_code, body if isinstance(body, dict) else {})
