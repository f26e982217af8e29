"""The timeline of a run: one row per operation, its bar drawn as SVG in per cent so that it fits any width."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import htpy as h

from gui_proj.components import link_to_run
from gui_proj.icons import icon
from gui_proj.json_view import json_view
from gui_proj.moments import parse, seconds_words
from gui_proj.resources import Operation, Run
from gui_proj.undos import undo_mark

KIND_ICONS: Final = {
    "step": "bolt",
    "transaction": "database",
    "sleep": "timer",
    "wait_event": "bell",
    "wait_signal": "mail",
    "wait_update": "swap",
    "approval": "approvals",
    "child": "child",
    "publish": "publish",
    "view": "view",
    "undo": "undo",
    "undoing": "undo",
    "cancel": "ban",
    "race": "race",
    "reply": "swap",
    "timeout": "timer",
}
WAITS: Final = frozenset({"sleep", "wait_event", "wait_signal", "wait_update", "approval"})
DEEPEST_INDENT: Final = 4
NICE_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where on the axis, in per cent, a moment lies."""

    start: datetime
    seconds: float

    def at(self, moment: datetime) -> float:
        share = (moment - self.start).total_seconds() / self.seconds
        return round(min(max(share, 0.0), 1.0) * 100, 2)


def scale_of(run: Run, history: Sequence[Operation], *, now: datetime) -> Scale:
    start = parse(run["created_at"]) or now
    ends = [parse(run["ended_at"]) or now, *filter(None, (parse(each.get("ended_at")) for each in history))]
    return Scale(start, max((max(ends) - start).total_seconds(), 0.001))


def ticks(scale: Scale, *, most: int = 5) -> list[tuple[float, str]]:
    """Round moments along the axis: their place in per cent and how long after the start they are."""
    step = _nice_step(scale.seconds / most)
    count = int(scale.seconds / step)
    return [(round(number * step / scale.seconds * 100, 2), _tick(number * step)) for number in range(count + 1)]


def _nice_step(rough: float) -> float:
    if rough >= 1:
        return next((step for step in NICE_STEPS if step >= rough), math.ceil(rough / 86400) * 86400)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(size * magnitude for size in (1, 2, 5, 10) if size * magnitude >= rough * 0.999)


def _tick(seconds: float) -> str:
    return "0" if seconds == 0 else seconds_words(seconds).replace(".0 ", " ")


def timeline(run: Run, history: Sequence[Operation], *, now: datetime | None = None) -> h.Element:
    """The whole picture: axis, time in the queue, and every operation."""
    now = now or datetime.now(UTC)
    scale = scale_of(run, history, now=now)
    return h.div(".timeline")[
        h.div(".op-line.axis", aria_hidden="true")[h.span, _axis(scale), h.span],
        h.ol[_queue_row(run, scale, now), (_row(run, each, scale, now) for each in history)],
    ]


def _axis(scale: Scale) -> h.Element:
    marks = ticks(scale)
    return h.svg(".ticks", width="100%", height="16")[
        (
            h.text(x=f"{place}%", y="11", text_anchor="start" if place < 3 else "end" if place > 97 else "middle")[
                label
            ]
            for place, label in marks
        )
    ]


def _queue_row(run: Run, scale: Scale, now: datetime) -> h.Node:
    ended, started = parse(run["ended_at"]), parse(run["started_at"])
    until = started or ended or now
    waited = (until - scale.start).total_seconds()
    if started and waited < scale.seconds / 50:
        return None  # too short to be worth a row
    return h.li(".op", id="op-queue")[
        h.div(".op-line")[
            h.span(".op-name")[icon("clock"), "in the queue"],
            _bar(scale, scale.start, until, "k-queue"),
            h.span(".op-time.num")[seconds_words(waited)],
        ]
    ]


def _row(run: Run, entry: Operation, scale: Scale, now: datetime) -> h.Element:
    began = parse(entry.get("started_at")) or parse(entry.get("ended_at")) or now
    ended = parse(entry.get("ended_at"))
    until = ended or parse(run["ended_at"]) or now
    style = f"k-{bar_class(entry)}"
    return h.li(class_=["op", f"o-{entry['status']}", indent_class(entry["operation"])], id=_row_id(entry))[
        h.details(data_keep=True)[
            h.summary(".op-line")[
                h.span(".op-name", title=f"{entry['kind']} {entry['operation']}")[
                    icon(KIND_ICONS.get(entry["kind"], "dot")),
                    h.span(".op-title")[entry["name"] or entry["kind"]],
                    _attempts(entry),
                    undo_mark(entry),
                ],
                _bar(scale, began, until, style, open_ended=ended is None),
                h.span(".op-time.num")[seconds_words((until - began).total_seconds())],
            ],
            h.div(".op-body")[tuple(_facts(run, entry))],
        ]
    ]


def _row_id(entry: Operation) -> str:
    return f"op-{entry['operation'].replace('/', '-')}-{entry['kind']}"


def bar_class(entry: Operation) -> str:
    """Which colour: what is undone and what went wrong stand out, waiting is calm."""
    if entry["status"] in {"failed", "cancelled"}:
        return entry["status"]
    if entry["kind"] in {"undo", "undoing", "cancel"}:
        return "undo"
    if entry["kind"] in WAITS:
        return "wait"
    return "done" if entry.get("ended_at") else "running"


def indent_class(operation: str) -> str:
    """Operations of a branch (`3/1/2`) are set in below it."""
    return f"d{min(operation.count('/'), DEEPEST_INDENT)}"


def _attempts(entry: Operation) -> h.Node:
    attempt = entry.get("attempt") or 1
    return attempt > 1 and h.span(".attempts", title=f"attempt {attempt}")[icon("retry"), str(attempt)]


def _bar(scale: Scale, began: datetime, ended: datetime, style: str, *, open_ended: bool = False) -> h.Element:
    left, right = scale.at(began), scale.at(ended)
    width = max(right - left, 0.6)
    left = min(left, 99.4)
    return h.svg(".lane", width="100%", height="18", aria_hidden="true")[
        (h.line(x1=f"{place}%", x2=f"{place}%", y1="0", y2="18") for place, _ in ticks(scale)),
        h.rect(x=f"{left}%", y="4", width=f"{width:.2f}%", height="10", rx="3", class_=[style, open_ended and "open"]),
    ]


def _facts(run: Run, entry: Operation) -> Iterator[h.Node]:
    words = [entry["kind"].replace("_", " "), entry["status"]]
    words += [f"operation {entry['operation']}"] if entry["position"] else []
    if (entry.get("attempt") or 1) > 1:
        words.append(f"attempt {entry['attempt']}")
    yield h.p(".muted")[" · ".join(words)]
    error = entry.get("error")
    if error:
        yield h.div(".error-box")[h.div[h.b[error["type"]], h.p[error["message"]]]]
    if entry["kind"] == "child" and isinstance(entry.get("output"), dict) and "run" in entry["output"]:
        yield h.p[h.a(href=link_to_run(str(entry["output"]["run"])))["Open the child run"]]
    whole = f"{link_to_run(run['id'])}/history/{entry['position']}"
    for side in ("input", "output"):
        if entry.get(side) is not None:
            yield h.div(".side")[h.span(".label")[side], json_view(entry[side], whole=whole, longest=1200)]
