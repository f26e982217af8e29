"""The account: who is signed in, what they may do, how it looks, and the way out."""

from datetime import UTC, datetime

import htpy as h
from starlette.responses import Response

from gui_proj.components import card, csrf_field
from gui_proj.icons import icon
from gui_proj.moments import ago
from gui_proj.page import THEMES, heading, theme_switch
from gui_proj.sign_in import local_path
from gui_proj.visit import Visit, theme_cookie, theme_of

YEAR_SECONDS = 365 * 86400


async def show(visit: Visit) -> Response:
    session = visit.session
    person = session.person
    began = datetime.fromtimestamp(session.began_at, UTC).isoformat()
    return await visit.page(
        "Account",
        heading(person.username, below=h.p(".muted.mono")[person.subject]),
        h.div(".halves")[
            card(
                h.dl(".facts")[
                    h.dt["Roles"],
                    h.dd[_badges(person.roles) if person.roles else h.span(".muted")["member"]],
                    h.dt["This GUI may"],
                    h.dd[_badges(sorted(session.tokens.scope))],
                    h.dt["Signed in"],
                    h.dd[ago(began)],
                ],
                h.div(".card-foot")[
                    h.a(".button", href="/access")[icon("key"), "Ask for a role"],
                    h.a(".button", href=f"{visit.gui.settings.auth_url}/account")["Password and sessions"],
                ],
                title="What you may do",
            ),
            card(
                h.div(".pad.stack")[
                    h.div(".setting")[h.span["Theme"], theme_switch(theme_of(visit.request), session)],
                    h.form(method="post", action="/sign-out")[
                        csrf_field(visit.csrf), h.button(type="submit")[icon("leave"), "Sign out"]
                    ],
                    h.p(".muted")[
                        "Signing out ends your session here and at the AuthService. ", h.a(href="/about")["About"]
                    ],
                ],
                title="This browser",
            ),
        ],
    )


def _badges(words: tuple[str, ...] | list[str]) -> h.Node:
    return [h.span(".badge")[word] for word in words]


async def choose_theme(visit: Visit) -> Response:
    """Kept in a cookie, so that the very first byte of a page already has the right colours."""
    wanted = visit.field("theme")
    theme = wanted if wanted in {name for name, _, _ in THEMES} else "system"
    referrer = visit.request.headers.get("Referer", "")
    answer = visit.redirect(local_path(referrer.removeprefix(visit.gui.settings.gui_url) or "/"))
    answer.set_cookie(
        theme_cookie(visit.request),
        theme,
        max_age=YEAR_SECONDS,
        path="/",
        secure=visit.gui.settings.is_https,
        httponly=True,
        samesite="lax",
    )
    return answer
