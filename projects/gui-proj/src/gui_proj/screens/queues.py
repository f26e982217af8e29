"""All queues: which are paused and why, how much of each is taken, and what waits in it since when."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.components import card, csrf_field, empty, query
from gui_proj.icons import icon
from gui_proj.page import heading
from gui_proj.queue_words import is_to_come, link_to_queue, load, state_pill, turn_words, waits
from gui_proj.resources import Listing, Queue
from gui_proj.visit import Visit

PAGE_SIZE: Final = 50
REFRESH_SECONDS: Final = 2
HERE: Final = "list"  # where a form says it was sent from, so that one stays there


async def show(visit: Visit) -> Response:
    listing: Listing[Queue] = await visit.get("/v1/queues", cursor=visit.query("cursor"), limit=PAGE_SIZE)
    queues = listing["items"]
    return await visit.page(
        "Queues",
        heading("Queues", below=h.p(".muted")["Where runs wait until they begin, and how many may be under way."]),
        h.div("#queues", data_live="queues runs", data_every=refresh_seconds(*queues))[
            card(_table(visit, queues) if queues else _nothing(visit))
        ],
        listing["next_cursor"]
        and h.nav(".pages", aria_label="Pages")[
            h.a(".button.small", href=query("/queues", cursor=listing["next_cursor"]))["More"]
        ],
    )


def refresh_seconds(*queues: Queue) -> int | None:
    """How often to look again; only where something happens that nothing tells of."""
    return REFRESH_SECONDS if any(is_to_come(queue) for queue in queues) else None


def actions(visit: Visit, queue: Queue, *, style: str = "", here: str = "") -> h.Element:
    """What lets its runs begin, or none of them."""
    address, name = link_to_queue(queue["name"]), h.span(".hidden")[" ", queue["name"]]
    fields = [csrf_field(visit.csrf), here and h.input(type="hidden", name="from", value=here)]
    if queue["paused"]:
        return h.form(method="post", action=f"{address}/resume")[
            fields, h.button(class_=style or "primary", type="submit")[icon("play"), h.span["Resume", name]]
        ]
    slug = quote(queue["name"], safe="")
    return h.details(".drop", id=f"pause-{slug}", data_keep=True)[
        h.summary(class_=["button", style])[icon("pause"), h.span["Pause", name]],
        h.form(".card", method="post", action=f"{address}/pause")[
            fields,
            h.div(".field")[
                h.label(for_=f"note-{slug}")["Why", h.span(".optional")["optional"]],
                h.input(id=f"note-{slug}", name="note", maxlength="1000", autocomplete="off"),
            ],
            h.p(".hint")["None of its runs begins; those under way go on."],
            h.button(".primary", type="submit")[icon("pause"), "Pause it"],
        ],
    ]


def _nothing(visit: Visit) -> h.Element:
    if visit.query("cursor"):
        return empty("queues", "No more queues", h.a(href="/queues")["From the start"])
    return empty("queues", "No queues", "There is no workflow whose runs could wait.")


def _table(visit: Visit, queues: Sequence[Queue]) -> h.Element:
    names = ("Queue", "State", "Under way", "Waiting")
    return h.div(".scroll")[
        h.table(".schedules.queues")[
            h.caption(".hidden")["Queues"],
            h.thead[h.tr[(h.th(scope="col")[name] for name in names), h.th(scope="col")[h.span(".hidden")["Actions"]]]],
            h.tbody[(_row(visit, each) for each in queues)],
        ]
    ]


def _row(visit: Visit, queue: Queue) -> h.Element:
    note, turns, workflows = queue["note"], ", ".join(turn_words(queue)), ", ".join(queue["workflows"])
    return h.tr(id=f"queue-{quote(queue['name'], safe='')}")[
        h.td[
            h.a(".row-link.cut", href=link_to_queue(queue["name"]), title=queue["name"])[queue["name"]],
            workflows and h.div(".sub", title=workflows)[workflows],
        ],
        h.td[state_pill(queue), note and h.div(".sub", title=note)[note]],
        h.td[load(queue), turns and h.div(".sub", title=turns)[turns]],
        h.td[waits(queue)],
        h.td[actions(visit, queue, style="small", here=HERE)],
    ]
