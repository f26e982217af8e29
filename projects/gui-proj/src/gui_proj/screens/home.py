"""Home: how things stand, what waits for a person, what ran last."""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import htpy as h
from starlette.responses import Response

from gui_proj.components import STATUS_ICONS, card, empty, link_to_run, query, runs_table
from gui_proj.icons import icon
from gui_proj.moments import ago, parse, seconds_words
from gui_proj.page import heading
from gui_proj.resources import Approval, Listing, Run
from gui_proj.visit import Visit

COUNTED: Final = ("running", "waiting", "queued", "failed", "completed", "cancelled")
COUNTED_AT_MOST: Final = 100
STRIP_RUNS: Final = 60
LATEST_RUNS: Final = 8


async def show(visit: Visit) -> Response:
    latest, approvals, *listings = await asyncio.gather(
        visit.get("/v1/runs", limit=STRIP_RUNS),
        visit.get("/v1/approvals", status="pending", limit=5),
        *(visit.get("/v1/runs", status=status, limit=COUNTED_AT_MOST) for status in COUNTED),
    )
    runs: list[Run] = latest["items"]
    return await visit.page(
        "Home",
        heading("Home", beside=h.a(".button.primary", href="/workflows")[icon("play"), "Start a workflow"]),
        h.div("#home", data_live="runs approvals")[
            _counters(dict(zip(COUNTED, listings, strict=True))),
            h.div(".columns")[
                card(
                    runs_table(runs[:LATEST_RUNS], caption="Latest runs", compact=True) if runs else _no_runs(),
                    title="Latest runs",
                    action=h.a(href="/runs")["All runs"],
                ),
                h.div[
                    _approvals_card(approvals["items"]),
                    _durations_card(runs),
                ],
            ],
        ],
    )


def _no_runs() -> h.Element:
    return empty("runs", "Nothing has run yet", h.a(href="/workflows")["Start your first workflow"], ".")


def _counters(listings: dict[str, Listing[Run]]) -> h.Element:
    return h.ul(".counters")[
        (
            h.li[
                h.a(class_=["counter", f"s-{status}"], href=query("/runs", status=status))[
                    h.span(".counter-name")[icon(STATUS_ICONS[status]), status],
                    h.span(".counter-number.num")[_count(listing)],
                ]
            ]
            for status, listing in listings.items()
        )
    ]


def _count(listing: Listing[Run]) -> str:
    count = len(listing["items"])
    return f"{count}+" if listing["next_cursor"] else str(count)


def _approvals_card(approvals: Sequence[Approval]) -> h.Element:
    if not approvals:
        return card(empty("approvals", "Nobody waits for you"), title="Waiting for a decision")
    return card(
        h.ul(".rows")[
            (
                h.li[
                    h.a(href=f"/approvals#approval-{each['id']}")[each["text"] or each["name"]],
                    h.div(".sub")[each["workflow"], " · asked ", ago(each["asked_at"])],
                ]
                for each in approvals
            )
        ],
        title="Waiting for a decision",
        action=h.a(href="/approvals")["Inbox"],
    )


def _durations_card(runs: Sequence[Run]) -> h.Node:
    ended = [run for run in runs if run["started_at"] and run["ended_at"]]
    if not ended:
        return None
    return card(_strip(ended), title="Durations", action=h.span(".muted")[f"last {len(ended)} ended runs"])


def _strip(runs: Sequence[Run]) -> h.Element:
    """One bar per run, oldest first: its height is its duration (square root, so that short ones stay visible)."""
    shown = [(run, _seconds(run)) for run in reversed(runs)]
    longest = max((seconds for _, seconds in shown), default=0.0) or 1.0
    width = 100 / max(len(shown), 24)
    return h.div(".strip")[
        h.svg(width="100%", height="72", aria_hidden="true")[
            (
                h.a(href=link_to_run(run["id"]), tabindex="-1")[
                    h.rect(
                        x=f"{number * width:.2f}%",
                        y=f"{72 - _height(seconds, longest):.1f}",
                        width=f"{width * 0.72:.2f}%",
                        height=f"{_height(seconds, longest):.1f}",
                        rx="1.5",
                        class_=f"f-{run['status']}",
                    )[h.title[f"{run['workflow']} · {run['status']} · {seconds_words(seconds)}"]],
                ]
                for number, (run, seconds) in enumerate(shown)
            )
        ],
        h.p(".muted")["longest ", seconds_words(longest)],
    ]


def _seconds(run: Run) -> float:
    began, ended = parse(run["started_at"]), parse(run["ended_at"])
    return (ended - began).total_seconds() if began and ended else 0.0


def _height(seconds: float, longest: float) -> float:
    return 4 + 66 * math.sqrt(max(seconds, 0.0) / longest)
