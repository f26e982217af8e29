"""Draws a run as a waterfall on a terminal: one bar per operation, on one scale of time."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli_proj import moments
from cli_proj.messages import printable
from cli_proj.printing import STATUS_STYLES, status_text
from cli_proj.timeline import Operation, Timeline, describe_waits
from cli_proj.undos import SIGN, undo_words
from cli_proj.watch import Event

LABEL_WIDTH = 28
DURATION_WIDTH = 9
EIGHTHS = " ▏▎▍▌▋▊▉█"
FRAMES_PER_SECOND = 8


class LiveWaterfall:
    """Keeps the picture of one run current; `change` is what `follow_run` calls."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False, file=sys.stdout)
        self._timeline: Timeline | None = None
        self._live = Live(
            console=self._console,
            refresh_per_second=FRAMES_PER_SECOND,
            get_renderable=self._draw,
            vertical_overflow="crop",
            redirect_stderr=False,
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def change(self, timeline: Timeline, _event: Event | None) -> None:
        """Show the new state at the next frame."""
        self._timeline = timeline

    def _draw(self) -> RenderableType:
        if self._timeline is None:
            return Text("")
        return draw(self._timeline, width=self._console.width, height=self._console.height)


def draw(timeline: Timeline, *, width: int, height: int = 10_000, now: datetime | None = None) -> RenderableType:
    """Return the picture of a run, at most `height` lines high."""
    now = now or datetime.now(UTC)
    parts: list[RenderableType] = [_headline(timeline, now)]
    operations = timeline.in_order
    shown = choose_operations(operations, max(height - 7, 3))
    if len(shown) < len(operations):
        done = sum(operation.status == "completed" for operation in operations)
        parts.append(Text(f"  {len(operations)} operations, {done} completed; the last {len(shown)}:", style="dim"))
    parts.append(_bars(shown, timeline, width=width, now=now))
    parts += _footnotes(timeline)
    return Group(*parts)


def choose_operations(operations: Sequence[Operation], limit: int) -> list[Operation]:
    """What to show when there is not room for all: what runs or failed, then the latest."""
    if len(operations) <= limit:
        return list(operations)
    urgent = [operation for operation in operations if operation.status != "completed"][-limit:]
    latest = [operation for operation in operations if operation not in urgent]
    chosen = {operation.key for operation in [*urgent, *latest[len(latest) - (limit - len(urgent)) :]]}
    return [operation for operation in operations if operation.key in chosen]


def bar(start: float, end: float, width: int) -> str:
    """A bar from `start` to `end` (0 to 1) in `width` cells, to an eighth of a cell."""
    first = min(int(start * width), width - 1)
    cells = max(end * width - first, 0.125)
    whole, rest = divmod(round(cells * 8), 8)
    text = " " * first + "█" * whole + (EIGHTHS[rest] if rest else "")
    return text[:width].ljust(width)


def _headline(timeline: Timeline, now: datetime) -> Text:
    run = timeline.run
    took = moments.between(run.get("started_at") or run["created_at"], run.get("ended_at"), now=now)
    line = Text("  ", no_wrap=True, overflow="ellipsis")
    line.append_text(status_text(timeline.status))
    if run.get("undoing_since"):
        line.append(f"  {SIGN} undoing", style="magenta")
    line.append(f"  {printable(run['workflow'])}", style="bold")
    line.append(f"  {printable(run['id'])}  {took}", style="dim")
    progress = run.get("progress")
    if progress and progress.get("fraction") is not None and not timeline.has_ended:
        line.append(f"  {progress['fraction']:.0%} ", style="cyan")
        line.append(printable(progress.get("text") or ""))
    return line


def _bars(operations: Sequence[Operation], timeline: Timeline, *, width: int, now: datetime) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    words = max((len(undo_words(operation.undo)[0]) for operation in operations), default=0)
    cells = max(width - LABEL_WIDTH - DURATION_WIDTH - 8 - (words + 1 if words else 0), 8)
    start = moments.parse(timeline.run.get("started_at") or timeline.run["created_at"]) or now
    end = moments.parse(timeline.run.get("ended_at")) or now
    span = max((end - start).total_seconds(), 0.001)
    for operation in operations:
        sign, label, line, took = _row(operation, start=start, span=span, cells=cells, now=now)
        text, style = undo_words(operation.undo)
        table.add_row(sign, label, *([Text(text.ljust(words), style=style)] if words else []), line, took)
    return table


def _row(
    operation: Operation, *, start: datetime, span: float, cells: int, now: datetime
) -> tuple[Text, Text, Text, Text]:
    sign, style = STATUS_STYLES.get(operation.status, ("·", ""))
    depth = operation.key.count("/")
    label = "  " * min(depth, 3) + printable(operation.label)
    if operation.attempt > 1:
        label += f" #{operation.attempt}"
    if len(label) > LABEL_WIDTH:
        label = label[: LABEL_WIDTH - 1] + "…"
    began = moments.parse(operation.started_at) or now
    ended = moments.parse(operation.ended_at) or now
    first, last = ((moment - start).total_seconds() / span for moment in (began, ended))
    colour = {"undo": "magenta", "undoing": "magenta", "approval": "yellow", "sleep": "dim"}.get(operation.kind, style)
    return (
        Text(f"    {sign}", style=style),
        Text(label.ljust(LABEL_WIDTH)),
        Text(bar(min(max(first, 0), 1), min(max(last, 0), 1), cells), style=colour),
        Text(moments.between(operation.started_at, operation.ended_at, now=now).rjust(DURATION_WIDTH), style="dim"),
    )


def _footnotes(timeline: Timeline) -> list[RenderableType]:
    run: dict[str, Any] = timeline.run
    if run.get("error"):
        error = run["error"]
        return [Text(f"    {printable(error['type'])}: {printable(error['message'])}", style="red")]
    if timeline.status == "waiting" and run.get("waiting_for"):
        return [Text(f"    waits for {printable(describe_waits(run['waiting_for']))}", style="yellow")]
    return []
