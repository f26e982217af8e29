"""The doors: sent to sign in, back from it, signed out; and the stream that keeps an open page live."""

import logging
from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from gui_proj.screens import errors
from gui_proj.session import Session
from gui_proj.sign_in import PENDING_SECONDS, SignInFailed, local_path
from gui_proj.visit import FRAGMENT_HEADER, Gui, Visit
from lib_auth.oauth_error import OAuthError, ServerUnavailable

logger = logging.getLogger(__name__)

MOST_BEGUN: Final = 8  # sign-ins of one browser: with the cookies of more, servers and proxies refuse whatever it sends


async def send_to_sign_in(request: Request, gui: Gui) -> Response:
    """Nobody is signed in: a page begins the sign-in, anything else says so."""
    if request.method not in {"GET", "HEAD"} or FRAGMENT_HEADER in request.headers or request.url.path == "/live":
        return await session_over(request, None)
    if gui.settings.cookie in request.cookies:
        return await session_over(request, None)
    return await _begin(request, gui, _here(request))


async def sign_in(request: Request) -> Response:
    """The "Sign in" button."""
    gui: Gui = request.app.state.gui
    return await _begin(request, gui, local_path(request.query_params.get("next", "/")))


async def _begin(request: Request, gui: Gui, return_to: str) -> Response:
    begun = await gui.sign_in.begin(return_to)
    answer = RedirectResponse(begun.url, status_code=303, headers={"Cache-Control": "no-store"})
    name = _pending_cookie(gui, begun.state)
    _set_cookie(answer, gui, name, begun.cookie, seconds=PENDING_SECONDS)
    _forget_oldest(request, answer, gui)
    return answer


async def callback(request: Request) -> Response:
    """The AuthService sent the browser back with a code, or with a refusal."""
    gui: Gui = request.app.state.gui
    given = dict(request.query_params)
    name = _pending_cookie(gui, given.get("state", ""))
    cookie = request.cookies.get(name)
    if cookie is None:
        raise SignInFailed("The sign-in took longer than ten minutes, or began in another browser.")
    done = await gui.sign_in.finish(given, cookie)
    before = gui.sessions.find(request.cookies.get(gui.settings.cookie))
    if before is not None:
        gui.sessions.end(before)
    session = gui.sessions.begin(done.person, done.tokens)
    answer = RedirectResponse(done.return_to, status_code=303, headers={"Cache-Control": "no-store"})
    _set_cookie(answer, gui, gui.settings.cookie, session.cookie, seconds=int(session.expires_at - session.began_at))
    _delete_cookie(answer, gui, name)
    logger.info("signed in", extra={"subject": session.person.subject})
    return answer


async def sign_out(visit: Visit) -> Response:
    """RP-initiated logout: ends the session here, then at the AuthService, which sends the browser back."""
    gui, session = visit.gui, visit.session
    gui.live.end(session)
    gui.sessions.end(session)
    address = await _end_at_issuer(gui, session)
    answer = RedirectResponse(address, status_code=303, headers={"Cache-Control": "no-store"})
    _delete_cookie(answer, gui, gui.settings.cookie)
    return answer


async def _end_at_issuer(gui: Gui, session: Session) -> str:
    client = gui.sign_in.client
    with suppress(OAuthError, ServerUnavailable):
        if session.tokens.refresh_token:
            await client.revoke(session.tokens.refresh_token)
        return await client.end_session_url(
            id_token=session.tokens.id_token, post_logout_redirect_uri=f"{gui.settings.gui_url}/signed-out"
        )
    return "/signed-out"


async def signed_out(request: Request) -> Response:
    return errors.alone(
        request,
        "Signed out",
        "You are signed out.",
        "Until next time.",
        action=("Sign in", "/sign-in"),
        status=200,
        drawing="leave",
    )


async def session_over(request: Request, _error: Exception | None) -> Response:
    """The session has ended: by time, by a sign-out elsewhere, by an administrator."""
    gui: Gui = request.app.state.gui
    if FRAGMENT_HEADER in request.headers or request.url.path == "/live":
        return PlainTextResponse("signed out", status_code=401)
    here = _here(request) if request.method == "GET" else _page_of_form(request, gui)
    answer = errors.alone(
        request,
        "Session ended",
        "Your session has ended.",
        "It ran out, or it was ended from elsewhere. Sign in again to carry on where you were.",
        action=("Sign in again", errors.sign_in_address(here)),
        status=401,
        drawing="leave",
    )
    _delete_cookie(answer, gui, gui.settings.cookie)
    return answer


async def live(visit: Visit) -> Response:
    """The notices for one browser; its tabs share them."""
    return StreamingResponse(
        visit.gui.live.listen(visit.session),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _here(request: Request) -> str:
    query = request.url.query
    return local_path(request.url.path + (f"?{query}" if query else ""))


def _page_of_form(request: Request, gui: Gui) -> str:
    """Where the form stands that was sent: our pages name themselves to us alone (`Referrer-Policy`)."""
    return local_path(request.headers.get("referer", "").removeprefix(gui.settings.gui_url))


def _pending_cookie(gui: Gui, state: str) -> str:
    """One per sign-in, so that two tabs may sign in side by side."""
    safe = "".join(letter for letter in state[:8] if letter.isalnum() or letter in "-_")
    return f"{_pending_prefix(gui)}{safe}"


def _pending_prefix(gui: Gui) -> str:
    return f"{gui.settings.cookie}-sign-in-"


def _forget_oldest(request: Request, answer: Response, gui: Gui) -> None:
    """Whoever opens many pages at once, and signs in on one of them, ends the others nowhere.

    Browsers send the oldest cookies first (RFC 6265 section 5.4).
    """
    begun = [name for name in request.cookies if name.startswith(_pending_prefix(gui))]
    for name in begun[: max(0, len(begun) + 1 - MOST_BEGUN)]:
        _delete_cookie(answer, gui, name)


def _set_cookie(answer: Response, gui: Gui, name: str, value: str, *, seconds: int) -> None:
    answer.set_cookie(
        name, value, max_age=seconds, path="/", secure=gui.settings.is_https, httponly=True, samesite="lax"
    )


def _delete_cookie(answer: Response, gui: Gui, name: str) -> None:
    answer.delete_cookie(name, path="/", secure=gui.settings.is_https, httponly=True, samesite="lax")
