"""About: what this is and who talks to whom; nothing secret, so nobody needs to sign in."""

from importlib.metadata import version

import htpy as h
from starlette.requests import Request
from starlette.responses import Response

from gui_proj.components import card
from gui_proj.page import Frame, document, heading
from gui_proj.visit import Gui, html_response, theme_of


async def show(request: Request) -> Response:
    gui: Gui = request.app.state.gui
    frame = Frame("About", "/about", theme_of(request), gui.assets)
    settings = gui.settings
    facts = (
        ("GUI", settings.gui_url, version("gui-proj")),
        ("AppService", settings.app_url, "does the work; refuses whoever brings no token"),
        ("AuthService", settings.auth_url, "checks who you are and issues the tokens"),
    )
    body = [
        heading("About"),
        card(
            h.p(".pad")["event-based-svcs runs event-driven workflows and shows them while they happen."],
            h.dl(".facts")[
                ((h.dt[name], h.dd[h.code[address], h.span(".muted")[" ", note]]) for name, address, note in facts)
            ],
            h.p(".card-foot")[h.a(".button.primary", href="/")["Open"]],
        ),
    ]
    return html_response(document(frame, *body))
