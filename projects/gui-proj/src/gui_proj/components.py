"""The pieces every screen is made of: pills, cards, tables, chips, empty states."""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import htpy as h

from gui_proj.icons import icon
from gui_proj.moments import ago, duration
from gui_proj.resources import ENDED, Progress, Run

STATUS_ICONS: Final = {
    "queued": "clock",
    "running": "play",
    "waiting": "pause",
    "cancelling": "ban",
    "completed": "check",
    "failed": "cross",
    "cancelled": "ban",
    "nondeterministic": "alert",
    "continued": "stack",
    "pending": "clock",
    "approved": "check",
    "rejected": "cross",
    "expired": "timer",
    "active": "clock",
    "paused": "pause",
    "over": "check",
    "open": "play",
    "full": "stack",
    "interrupted": "alert",
    "disabled": "cross",
    "granted": "check",
    "refused": "cross",
}

# The words of the workflows' types, each found by a part of its name.
TYPE_ICONS: Final = (
    ("fan", "fan"),
    ("choreograph", "events"),
    ("saga", "undo"),
    ("approval", "approvals"),
    ("schedule", "calendar"),
    ("event", "bell"),
    ("stream", "stream"),
    ("batch", "stack"),
    ("progress", "timer"),
    ("long", "timer"),
    ("reply", "swap"),
    ("publish", "publish"),
    ("job", "bolt"),
)


def pill(status: str) -> h.Element:
    """A status: icon, word and colour, so that no one of them carries it alone."""
    return h.span(class_=["pill", f"s-{status}"])[icon(STATUS_ICONS.get(status, "dot")), status]


def type_badge(name: str) -> h.Element:
    drawing = next((drawing for part, drawing in TYPE_ICONS if part in name.lower()), "workflows")
    return h.span(".badge")[icon(drawing), name.replace("_", " ").replace("-", " ")]


def card(*content: h.Node, title: h.Node = None, action: h.Node = None, style: str = "") -> h.Element:
    """A bordered group; its title is a second-level heading."""
    head = title is not None and h.div(".card-head")[h.h2[title], action]
    return h.section(class_=["card", style])[head, content]


def prose(text: str) -> h.Node:
    """A sentence of an author's docstring: words in backticks are code."""
    parts = text.split("`")
    return [h.code[part] if number % 2 and number < len(parts) - 1 else part for number, part in enumerate(parts)]


def empty(drawing: str, title: str, *hint: h.Node) -> h.Element:
    """What a list shows when it has nothing to show, and what to do about it."""
    return h.div(".empty")[icon(drawing), h.p(".empty-title")[title], h.p(".muted")[hint]]


def notice(text: h.Node, *, tone: str = "info") -> h.Element:
    drawing = {"info": "dot", "good": "check", "bad": "alert"}[tone]
    return h.div(class_=["notice", tone], role="alert" if tone == "bad" else "status")[icon(drawing), h.div[text]]


def csrf_field(token: str) -> h.VoidElement:
    return h.input(type="hidden", name="_csrf", value=token)


def link_to_run(run_id: str) -> str:
    return "/runs/" + quote(run_id, safe="")


def query(path: str, **parameters: str | list[str] | None) -> str:
    """An address with the parameters that say something."""
    given = {name: value for name, value in parameters.items() if value}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def chip(text: h.Node, href: str, *, chosen: bool) -> h.Element:
    return h.a(".chip", href=href, aria_current="true" if chosen else None)[text]


def progress_bar(progress: Progress | None) -> h.Node:
    if not progress:
        return None
    fraction = progress.get("fraction")
    percent = None if fraction is None else f"{min(max(fraction, 0.0), 1.0):.0%}"
    return h.div(".progress")[
        h.progress(max="1", value=None if fraction is None else f"{fraction:.4f}", aria_label="Progress"),
        h.span(".progress-text")[h.b[percent] if percent else None, progress.get("text")],
    ]


def runs_table(runs: Iterable[Run], *, caption: str, compact: bool = False) -> h.Element:
    """Runs as rows; at narrow widths the rows become cards by the style sheet."""
    return h.div(".scroll")[
        h.table(class_=["runs", {"compact": compact}])[
            h.caption(".hidden")[caption],
            h.thead[
                h.tr[
                    h.th(scope="col")["Run"],
                    h.th(scope="col")["Status"],
                    h.th(".wide", scope="col")["Started by"],
                    h.th(scope="col")["Created"],
                    h.th(".right", scope="col")["Duration"],
                ]
            ],
            h.tbody[(run_row(run) for run in runs)],
        ]
    ]


def run_row(run: Run) -> h.Element:
    return h.tr(id=f"row-{run['id']}")[
        h.td[
            h.a(".row-link", href=link_to_run(run["id"]))[run["workflow"]],
            h.div(".sub.mono", title=run["id"])[short_id(run["id"])],
        ],
        h.td[pill(run["status"]), run_note(run)],
        h.td(".wide")[asker(run)],
        h.td(".nowrap")[ago(run["created_at"])],
        h.td(".right.nowrap.num")[duration(run["started_at"], run["ended_at"]) or h.span(".muted")["—"]],
    ]


def short_id(run_id: str) -> str:
    """Ids we made are long and random: their beginning tells them apart, and the run's page has them whole."""
    return f"{run_id[:10]}…" if len(run_id) == 32 and run_id.isalnum() else run_id


def run_note(run: Run) -> h.Node:
    """The one thing worth knowing beside the status."""
    error, progress, waiting = run.get("error"), run.get("progress"), run.get("waiting_for") or []
    if error and run["status"] != "completed":
        return h.div(".sub.bad-text", title=error["message"])[error["message"]]
    if progress and run["status"] not in ENDED:
        return progress_bar(progress)
    if waiting and run["status"] not in ENDED:
        return h.div(".sub")["for ", waiting_words(waiting)]
    return None


LACKED: Final = ("worker", "slot")  # what a run has to have before it does anything


def waiting_words(waiting: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(_wait_words(each) for each in waiting)


def _wait_words(waiting: Mapping[str, Any]) -> str:
    kind, name, count = waiting["kind"].removeprefix("wait_"), waiting["name"], waiting.get("count", 1)
    words = name if kind in (name, "others") else f"{f'a {kind}' if kind in LACKED else kind} {name}"
    return words if count == 1 or kind == "others" else f"{words} ({count:,} of them)"


def counted(count: int, word: str) -> str:
    """1 run, 2 runs."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def asker(run: Run) -> h.Node:
    """Who started a run, or what."""
    principal = run.get("principal")
    if not principal:
        # Nobody but a schedule may start a run under such an id.
        return h.span(".muted")["a schedule" if run["id"].startswith("schedule~") else "an event"]
    return principal.get("username") or h.span(".mono")[principal["subject"]]
