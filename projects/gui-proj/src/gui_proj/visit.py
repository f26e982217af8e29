"""One request of one person: what a screen needs to answer it."""

import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import htpy as h
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gui_proj.app_service import AppService
from gui_proj.assets import Assets
from gui_proj.live import LiveFeeds
from gui_proj.page import Frame, document, fragment
from gui_proj.session import Session, Sessions
from gui_proj.settings import GuiSettings
from gui_proj.sign_in import SignIn

KEY: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
FRAGMENT_HEADER: Final = "Evs-Fragment"
MOST_FIELDS: Final = 5_000
BIGGEST_FIELD: Final = 12 * 1024 * 1024
LONGEST_NUMBER: Final = 18


@dataclass(frozen=True, slots=True)
class Gui:
    """The parts the composition root wires together."""

    settings: GuiSettings
    assets: Assets
    sessions: Sessions
    sign_in: SignIn
    app: AppService
    live: LiveFeeds


@dataclass(slots=True)
class Visit:
    """A signed-in request."""

    request: Request
    gui: Gui
    session: Session
    form: FormData = field(default_factory=FormData)

    @property
    def is_fragment(self) -> bool:
        return FRAGMENT_HEADER in self.request.headers

    def query(self, name: str) -> str:
        return self.request.query_params.get(name, "").strip()

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def number(self, name: str) -> int:
        """A number of the address; there is nothing where there is none, nor at one that no database holds."""
        text = self.path(name)
        if not text.isdecimal() or len(text) > LONGEST_NUMBER:
            raise HTTPException(404)
        return int(text)

    def field(self, name: str) -> str:
        value = self.form.get(name)
        return value.strip() if isinstance(value, str) else ""

    @property
    def key(self) -> str:
        """What the form was given to be sent once by, however often its button is pressed; a new one for any other."""
        given = self.field("_key")
        return given if KEY.fullmatch(given) else uuid.uuid4().hex

    @property
    def may_manage(self) -> bool:
        """Whether to offer what is for operators; what is allowed the AppService says."""
        return self.session.may_manage

    @property
    def csrf(self) -> str:
        return self.session.csrf_token()

    async def get(self, path: str, **parameters: Any) -> Any:
        return await self.gui.app.get(self.session, path, **parameters)

    async def post(self, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        return await self.gui.app.post(self.session, path, body, headers=headers)

    async def put(self, path: str, body: Any) -> Any:
        return await self.gui.app.put(self.session, path, body)

    async def patch(self, path: str, body: Any) -> Any:
        return await self.gui.app.patch(self.session, path, body)

    async def delete(self, path: str) -> None:
        await self.gui.app.delete(self.session, path)

    def say(self, text: str, *, tone: str = "good") -> None:
        """Shown once, at the top of the next page."""
        self.session.notice = (tone, text)

    def redirect(self, path: str) -> Response:
        return RedirectResponse(path, status_code=303)

    async def page(self, title: str, *content: h.Node, status: int = 200) -> Response:
        """The screen in its frame, or alone when the page's script only wants to refresh it."""
        frame = Frame(
            title,
            self.request.url.path,
            theme_of(self.request),
            self.gui.assets,
            self.session,
            waiting_approvals=await self._waiting_approvals(),
            notice=None if self.is_fragment else self._take_notice(),
        )
        body = fragment(frame, *content) if self.is_fragment else document(frame, *content)
        return html_response(body, status=status)

    def _take_notice(self) -> tuple[str, str] | None:
        found, self.session.notice = self.session.notice, None
        return found

    async def _waiting_approvals(self) -> int:
        listing = await self.get("/v1/approvals", status="pending", limit=20)
        return len(listing["items"])


def html_response(body: h.Renderable, *, status: int = 200) -> Response:
    # A page shows what one person may see: no cache on the way may keep it.
    return HTMLResponse(str(body), status_code=status, headers={"Cache-Control": "no-store"})


def theme_of(request: Request) -> str:
    theme = request.cookies.get(theme_cookie(request), "system")
    return theme if theme in {"light", "dark"} else "system"


def theme_cookie(request: Request) -> str:
    gui: Gui = request.app.state.gui
    return f"evs-gui-{urlsplit(gui.settings.gui_url).port or 443}-theme"


type Handler = Callable[[Visit], Awaitable[Response]]


async def read_visit(request: Request, gui: Gui, session: Session) -> Visit:
    """Reads the form of an unsafe request and refuses it without the session's token."""
    if request.method in {"GET", "HEAD"}:
        return Visit(request, gui, session)
    form = await request.form(max_files=20, max_fields=MOST_FIELDS, max_part_size=BIGGEST_FIELD)
    token = form.get("_csrf")
    if not isinstance(token, str) or not session.csrf_token_fits(token):
        raise HTTPException(403, "The form is from another session. Open the page again and repeat.")
    return Visit(request, gui, session, form)
