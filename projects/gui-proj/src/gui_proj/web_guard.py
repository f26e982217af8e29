"""What every request must be and every answer must carry: the right host, the right origin, a strict policy."""

from typing import Final
from urllib.parse import urlsplit

import htpy as h
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib_events.http.limits import PROBE_PATHS

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def content_security_policy(*, issuer: str) -> str:
    """Our own script, style and pictures, nothing else; forms may go to us and, to sign out, to the issuer."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            f"form-action 'self' {issuer}",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types evs",
        )
    )


class WebGuard:
    """Refuses requests for another host and unsafe ones from another origin; adds the security headers."""

    def __init__(self, app: ASGIApp, *, gui_url: str, issuer: str) -> None:
        self.app = app
        self.gui_url = gui_url
        self.host = urlsplit(gui_url).netloc.lower()
        self.port = urlsplit(gui_url).port
        origin = urlsplit(issuer)
        self.headers = {
            "Content-Security-Policy": content_security_policy(issuer=f"{origin.scheme}://{origin.netloc}"),
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        }
        if gui_url.startswith("https://"):
            self.headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        answer = self._answer(scope) or self.app
        await answer(scope, receive, guarded_send)

    def _answer(self, scope: Scope) -> ASGIApp | None:
        """The answer to a request that must not reach the screens."""
        headers = Headers(scope=scope)
        host = ", ".join(headers.getlist("host")).lower()  # of two, a proxy may have read the other one
        if host != self.host and scope["path"] not in PROBE_PATHS:
            return self._other_host(scope, host)
        if scope["method"] not in SAFE_METHODS and headers.getlist("origin") != [self.gui_url]:
            # Exact: null, missing and same-site origins are refused as well.
            return _refusal(403, "This request did not come from a page of ours.", self.gui_url)
        return None

    def _other_host(self, scope: Scope, host: str) -> ASGIApp:
        is_localhost = host == (f"localhost:{self.port}" if self.port else "localhost")
        if is_localhost and scope["method"] in {"GET", "HEAD"}:
            query = scope["query_string"].decode("latin-1")
            path = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else scope["path"]
            return RedirectResponse(self.gui_url + path + (f"?{query}" if query else ""), status_code=308)
        return _refusal(421, "There is nothing at this address.", self.gui_url)


def _refusal(status: int, words: str, gui_url: str) -> HTMLResponse:
    page = h.html(lang="en")[
        h.head[h.meta(charset="utf-8"), h.title["Refused"]],
        h.body[h.main[h.h1["Refused"], h.p[words], h.p[h.a(href=gui_url)["Open the GUI"]]]],
    ]
    return HTMLResponse(str(page), status_code=status)
