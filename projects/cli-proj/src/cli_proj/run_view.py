"""How a run looks to a person: as a row, as a whole, as one last line."""

from typing import Any

from cli_proj import moments
from cli_proj.column import Column, Item
from cli_proj.messages import printable
from cli_proj.printing import console, print_fields, print_renderable, write
from cli_proj.timeline import ENDED, Timeline, describe_waits
from cli_proj.undos import describe_undos

WIDEST = 120  # a longer bar says nothing more
ACTS_NOT = {
    "expired": "nobody any more (expired)",
    "stopped": "nobody any more (stopped)",
    "nobody": "nobody (its owner has to start or retry it)",
}


def show_run(run: Item) -> None:
    """Print a run for a person: facts, result, and its operations as a waterfall."""
    from cli_proj.waterfall import draw  # noqa: PLC0415 - imports rich

    error = run.get("error")
    print_fields(
        (
            ("id", run["id"]),
            ("workflow", f"{run['workflow']} version {run['version']}"),
            ("status", run["status"]),
            ("undo" if run["status"] in ENDED else "undoing", _undoing(run)),
            ("waits for", describe_waits(run.get("waiting_for") or [])),
            ("by", person_of(run["principal"])),
            ("acts", _acting(run)),
            ("created", f"{run['created_at']} ({moments.age(run['created_at'])} ago)"),
            ("took", moments.between(run["started_at"], run["ended_at"])),
            ("deadline", run.get("deadline_at")),
            ("parent", run.get("parent")),
            ("forked from", run.get("forked_from")),
            ("tags", run.get("tags")),
            ("input", _shorten(run.get("input"))),
            ("output", _shorten(run.get("output"))),
            ("error", f"{error['type']}: {error['message']}" if error else None),
            ("views", run.get("views")),
        )
    )
    if run.get("history"):
        timeline = Timeline(dict(run))
        timeline.take_snapshot(run, run["history"])
        print_renderable(draw(timeline, width=min(console().width, WIDEST)))


def _acting(run: Item) -> str | None:
    """While it goes on, for whom it acts at other services; nothing where its workflow does so for nobody."""
    acting = run.get("acting")
    if not acting:
        return None
    where = "; ".join(f"{each['resource']} with {', '.join(each['scope'])}" for each in acting["services"])
    if acting["state"] == "acting":
        return f"for {person_of(run['principal'])} at {where}, until it ends, {acting['until']} at the latest"
    return f"for {ACTS_NOT[acting['state']]} at {where}"


def _undoing(run: Item) -> str:
    """How far the undos are: while they go on, and how they ended."""
    undos = [entry["undo"] for entry in run.get("history") or [] if entry.get("undo")]
    if since := run.get("undoing_since"):
        return f"since {moments.clock(since)}: {describe_undos(undos)}"
    return describe_undos(undos)


def _shorten(value: Any) -> Any:
    """Show the beginning of long texts: -o json shows them whole."""
    if isinstance(value, str):
        return value if len(value) <= 200 else f"{value[:160]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {name: _shorten(part) for name, part in value.items()}
    if isinstance(value, list) and len(value) > 5:
        return [*(_shorten(part) for part in value[:3]), f"… ({len(value)} in all)"]
    return value


def show_end(run: Item) -> None:
    """Print how a run that was followed has ended."""
    error = run.get("error")
    what = f": {error['type']}: {error['message']}" if error else ""
    took = moments.between(run["started_at"], run["ended_at"])
    write(printable(f"{moments.clock(run['ended_at'])}  {run['status']} after {took}{what}") + "\n")


def remark_on(run: Item) -> str:
    """What is worth knowing of a run in a list."""
    if run.get("error"):
        return str(run["error"]["message"])
    if run.get("progress"):
        return f"{run['progress']['fraction']:.0%} {run['progress']['text']}"
    return describe_waits(run.get("waiting_for") or []) if run["status"] in ("queued", "waiting") else ""


def person_of(principal: Item | None) -> str:
    """Who started a run."""
    return (principal["username"] or principal["subject"]) if principal else ""


COLUMNS = (
    Column("id", lambda run: run["id"]),
    Column("workflow", lambda run: run["workflow"]),
    Column("status", lambda run: run["status"], is_status=True),
    Column("by", lambda run: person_of(run["principal"]), is_optional=True),
    Column("age", lambda run: moments.age(run["created_at"]), align_right=True),
    Column("took", lambda run: moments.between(run["started_at"], run["ended_at"]), align_right=True, is_optional=True),
    Column("", remark_on, is_wide=True),
)
