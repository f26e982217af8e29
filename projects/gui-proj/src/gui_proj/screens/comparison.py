"""Two runs beside each other: what differs of them and of their operations. A fork is compared with its origin."""

import asyncio
from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gui_proj.components import card, empty, link_to_run, pill, short_id
from gui_proj.icons import icon
from gui_proj.json_view import json_view
from gui_proj.page import heading
from gui_proj.resources import Comparison, Difference, Operation, Run
from gui_proj.timeline import KIND_ICONS
from gui_proj.visit import Visit

MOST_DIFFERENCES: Final = 100
LONGEST_VALUE: Final = 800


async def show(visit: Visit) -> Response:
    run_id, other_id = visit.path("id"), visit.query("with")
    if not other_id:
        raise HTTPException(404)
    path = f"/v1/runs/{quote(run_id, safe='')}"
    found, run, other = await asyncio.gather(
        visit.get(f"{path}/comparison", **{"with": other_id, "limit": MOST_DIFFERENCES}),
        visit.get(path),
        visit.get(f"/v1/runs/{quote(other_id, safe='')}"),
    )
    return await visit.page(
        f"{run['workflow']} · what differs",
        heading(
            "What differs",
            above=[
                h.a(href="/runs")["Runs"],
                " / ",
                h.a(".mono", href=link_to_run(run_id))[short_id(run_id)],
            ],
            below=h.p(".muted")[
                "This run and ",
                "the run it was forked from" if run["forked_from"] == other_id else "another one",
                ". Times and attempts do not count.",
            ],
        ),
        h.div(".compared")[_whole(run, found, "This run"), _whole(other, found, _called(run, other_id))],
        _operations(found),
    )


def _called(run: Run, other: str) -> str:
    return "Forked from" if run["forked_from"] == other else "The other run"


def _whole(run: Run, found: Comparison, title: str) -> h.Element:
    """What the runs themselves differ in, on one side."""
    values = [name for name in found["fields"] if name in {"input", "output"}]
    error = run["error"] if "error" in found["fields"] else None
    return card(
        h.div(".pad")[
            h.p[h.a(".mono", href=link_to_run(run["id"]))[run["id"]]],
            h.p[pill(run["status"]), h.span(".muted")[f" {run['workflow']} v{run['version']}"]],
            error and h.div(".error-box")[h.div[h.b[error["type"]], h.p[error["message"]]]],
            [_side(name, run[name]) for name in values],  # type: ignore[literal-required]
            not values and h.p(".muted")["Input and output are the same."],
        ],
        title=title,
    )


def _operations(found: Comparison) -> h.Element:
    differences = found["differences"]
    count = f"{found['total']} differ" if found["total"] else None
    more = found["total"] - len(differences)
    return card(
        h.ol(".differences")[(_difference(each) for each in differences)]
        if differences
        else empty("check", "No operation differs", "Both runs did the same, with the same outcome."),
        more > 0
        and h.p(".muted.pad")[
            f"{more:,} more: ", h.code[f"evs run compare {found['run']} {found['other']} --limit {found['total']}"]
        ],
        title="Operations",
        action=count and h.span(".muted")[count],
    )


def _difference(difference: Difference) -> h.Element:
    one, other = difference["run"], difference["other"]
    entry = one or other
    assert entry is not None  # noqa: S101 - one of the two has it
    words = ", ".join(difference["fields"]) if one and other else "only here" if one else "only in the other run"
    return h.li(".difference")[
        h.div(".difference-head")[
            h.span(".op-name", title=f"{entry['kind']} {entry['operation']}")[
                icon(KIND_ICONS.get(entry["kind"], "dot")), h.span(".op-title")[entry["name"] or entry["kind"]]
            ],
            h.span(".muted")[words],
        ],
        h.div(".compared")[_entry(one, difference), _entry(other, difference)],
    ]


def _entry(entry: Operation | None, difference: Difference) -> h.Element:
    """One side of a difference: what differs, or how it ended where there is nothing to compare it with."""
    if entry is None:
        return h.p(".muted")["did not happen"]
    fields, error = difference["fields"], entry.get("error")
    values = [name for name in ("input", "output") if (name in fields if fields else entry.get(name) is not None)]
    is_named = not fields or not {"kind", "name", "status"}.isdisjoint(fields)
    return h.div(".difference-side")[
        is_named and h.p[pill(entry["status"]), f" {entry['kind']} {entry['name']}"],
        error and h.div(".error-box")[h.div[h.b[error["type"]], h.p[error["message"]]]],
        [_side(name, entry.get(name)) for name in values],
    ]


def _side(name: str, value: Any) -> h.Element:
    return h.div(".side")[h.span(".label")[name], json_view(value, longest=LONGEST_VALUE)]
