"""What of a run can be undone, is being undone and has been: a mark at each operation, and a card that sums it up."""

from collections.abc import Sequence
from typing import Final

import htpy as h

from gui_proj.components import card
from gui_proj.icons import icon
from gui_proj.moments import ago
from gui_proj.resources import ENDED, Operation, Run, Undo

# What each state is called at its operation; what nothing asks for is only a quiet sign.
WORDS: Final = {
    "declared": "",
    "pending": "to be undone",
    "running": "being undone",
    "undone": "undone",
    "failed": "not undone",
}


def undo_mark(entry: Operation) -> h.Node:
    """A sign at an operation that can be undone, and in words how far that is."""
    undo = entry.get("undo")
    if not undo:
        return None
    words = WORDS[undo["status"]]
    return h.span(class_=["undo-mark", f"u-{undo['status']}"], title=_title(undo))[
        icon("undo"),
        h.span(".undo-word")[words] if words else h.span(".hidden")["can be undone"],
    ]


def _title(undo: Undo) -> str:
    what = {
        "declared": f"{undo['name']} would undo it",
        "pending": f"{undo['name']} will undo it",
        "running": f"{undo['name']} is undoing it",
        "undone": f"{undo['name']} has undone it",
        "failed": f"{undo['name']} could not undo it",
    }[undo["status"]]
    error = undo["error"]
    return f"{what}: {error['message']}" if error else what


def undoing_badge(run: Run) -> h.Node:
    """Beside the status: a run may be running, waiting or cancelling while it undoes."""
    return run.get("undoing_since") and h.span(".undo-mark.u-running")[icon("undo"), "undoing"]


def undos_card(run: Run, history: Sequence[Operation]) -> h.Node:
    """While a run undoes what it did: how far it is. Afterwards: only what could not be undone."""
    undos = [(entry, undo) for entry in history if (undo := entry.get("undo")) and undo["status"] != "declared"]
    failed = [pair for pair in undos if pair[1]["status"] == "failed"]
    is_going_on = bool(run.get("undoing_since")) and run["status"] not in ENDED
    if not undos or not (is_going_on or failed):
        return None
    return card(
        h.div(".pad")[
            h.p[
                h.b["Undoing what it did: " if is_going_on else "Not everything was undone: ", _counted(undos)],
                is_going_on and h.span(".muted")[" · since ", ago(run["undoing_since"])],
            ],
            [_current(entry, undo) for entry, undo in undos if undo["status"] == "running"],
            failed and h.ul(".undo-failed")[(_failed(entry, undo) for entry, undo in failed)],
        ],
        title=None,
        style="undoing" if is_going_on else "undo-bad",
    )


def _counted(undos: Sequence[tuple[Operation, Undo]]) -> str:
    states = [undo["status"] for _, undo in undos]
    words = [f"{states.count('undone')} of {len(states)} undone"]
    words += [f"{states.count('failed')} failed"] if "failed" in states else []
    words += [f"{states.count('pending')} still to come"] if "pending" in states else []
    return ", ".join(words)


def _current(entry: Operation, undo: Undo) -> h.Element:
    error = undo["error"]
    again = f", attempt {undo['attempt']}" if undo["attempt"] > 1 else ""
    return h.p[
        "Now ",
        h.code[undo["name"]],
        f" undoes {entry['name']}{again}",
        error and h.span(".muted")[f"; the last one failed: {error['message']}"],
    ]


def _failed(entry: Operation, undo: Undo) -> h.Element:
    error = undo["error"]
    return h.li[
        icon("cross"),
        h.span[
            h.b[entry["name"]],
            " stands: ",
            h.code[undo["name"]],
            " failed",
            f" after {undo['attempt']} attempts" if undo["attempt"] > 1 else None,
            error and f" with {error['type']}: {error['message']}",
        ],
    ]
