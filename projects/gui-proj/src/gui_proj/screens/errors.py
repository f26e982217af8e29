"""Pages for what went wrong: each says what happened, and each has a way out."""

from typing import Final
from urllib.parse import urlencode

import htpy as h
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gui_proj.app_service import AppServiceDown, AppServiceRefused
from gui_proj.icons import icon
from gui_proj.page import Frame, document
from gui_proj.session import AuthServiceDown
from gui_proj.visit import FRAGMENT_HEADER, Gui, html_response, theme_of

RETRY_SECONDS: Final = 3

WORDS: Final = {
    400: ("Bad request", "The request could not be read."),
    403: ("Not allowed", "You may not do this."),
    404: ("Not found", "There is nothing at this address, or it is not yours to see."),
    405: ("Not possible", "This address does not do that."),
    408: ("Too slow", "What was sent did not arrive in time. Send it again."),
    413: ("Too large", "What was sent is larger than the GUI takes."),
    421: ("Wrong address", "There is nothing at this address."),
}


def sign_in_address(return_to: str) -> str:
    return "/sign-in?" + urlencode({"next": return_to})


def alone(
    request: Request,
    title: str,
    headline: str,
    *words: h.Node,
    action: tuple[str, str] = ("Go home", "/"),
    status: int,
    drawing: str = "alert",
    retry_seconds: int | None = None,
) -> Response:
    """A page with one message; it asks no other service, so nothing in it can fail."""
    gui: Gui = request.app.state.gui
    session = gui.sessions.find(request.cookies.get(gui.settings.cookie))  # a way to sign out, on these pages too
    frame = Frame(title, request.url.path, theme_of(request), gui.assets, session, retry_seconds=retry_seconds)
    label, address = action
    body = h.div(".message")[
        h.div(".message-icon")[icon(drawing)],
        h.h1[headline],
        h.p(".muted")[words],
        h.p[h.a(".button.primary", href=address)[label]],
    ]
    return html_response(document(frame, body), status=status)


async def service_down(request: Request, error: Exception) -> Response:
    """AppService or AuthService does not answer; the page tries again by itself."""
    name = "AuthService" if isinstance(error, AuthServiceDown) else "AppService"
    assert isinstance(error, (AppServiceDown, AuthServiceDown))  # noqa: S101 - the table of handlers says so
    return _unavailable(request, f"The {name} does not answer.")


def _unavailable(request: Request, headline: str) -> Response:
    if FRAGMENT_HEADER in request.headers:
        return PlainTextResponse(headline, status_code=503)
    words, action, repeats = _what_next(request)
    answer = alone(
        request,
        "Not available",
        headline,
        "It may be starting, or it may be stopped. ",
        words,
        action=action,
        status=503,
        drawing="cloud-off",
        retry_seconds=RETRY_SECONDS if repeats else None,
    )
    answer.headers["Retry-After"] = str(RETRY_SECONDS)
    return answer


def _what_next(request: Request) -> tuple[str, tuple[str, str], bool]:
    """What to say, where to go, and whether the page may ask again by itself."""
    if request.url.path == "/callback":  # a code cannot be sent twice
        return "Nobody has been signed in.", ("Sign in again", "/sign-in"), False
    if request.method != "GET":  # it may have been done although no answer came
        return "Look whether it was done before you repeat it.", _out(request), False
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "This page tries again every few seconds.", ("Try again", here), True


async def sign_in_failed(request: Request, error: Exception) -> Response:
    return alone(
        request, "Sign-in failed", "That did not work.", str(error), action=("Sign in again", "/sign-in"), status=400
    )


async def refused(request: Request, error: Exception) -> Response:
    """The AppService said no, in a way no screen made a better answer of."""
    assert isinstance(error, AppServiceRefused)  # noqa: S101 - the table of handlers says so
    if error.status == 503:
        return _unavailable(request, "The AppService is not ready.")
    status = error.status if error.status in WORDS else 502 if error.status >= 500 else 400
    title, words = WORDS.get(status, (error.title, "The AppService refused."))
    if status == 403:
        # The AppService tells whoever reads it at a terminal what to type there; here is a button.
        said = f"It takes the role {error.body['role']}." if error.kind == "role-missing" else error.detail
        return alone(request, title, words, said, action=("Ask for a role", "/access"), status=status, drawing="key")
    return alone(request, title, f"{title}.", error.detail or words, action=_out(request), status=status)


async def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the table of handlers says so
    title, words = WORDS.get(error.status_code, ("Error", "The request could not be answered."))
    said = error.detail if error.detail and error.status_code in {400, 403, 413} else words
    return alone(request, title, f"{title}.", said, action=_out(request), status=error.status_code)


async def crashed(request: Request, _error: Exception) -> Response:
    identifier = request.scope.get("state", {}).get("request_id", "")
    return alone(
        request,
        "Error",
        "Something went wrong on our side.",
        "It has been logged. Whoever runs this finds it under ",
        h.code[identifier],
        ".",
        action=_out(request),
        status=500,
    )


def _out(request: Request) -> tuple[str, str]:
    for prefix, label in (
        ("/runs/", "All runs"),
        ("/workflows/", "All workflows"),
        ("/schedules/", "All schedules"),
        ("/queues/", "All queues"),
        ("/webhooks/", "All webhooks"),
    ):
        if request.url.path.startswith(prefix):
            return label, prefix.rstrip("/")
    return "Go home", "/"
