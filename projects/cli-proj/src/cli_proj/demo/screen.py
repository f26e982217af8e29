"""What the demonstration shows: chapters, steps as they happen, runs live, the summary at the end."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cli_proj import moments
from cli_proj.api import Service
from cli_proj.column import Column
from cli_proj.messages import BOLD, DIM, GREEN, RED, printable, styled
from cli_proj.printing import write
from cli_proj.timeline import Timeline
from cli_proj.watch import Event, follow_run

PLAIN_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the summary."""

    workflow: str
    type: str
    result: str
    seconds: float
    events: int


class Screen:
    """Prints on standard output: live on a terminal, line by line elsewhere."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin a part."""
        self._chapters += 1
        self._line(f"\n{self._style(f'{self._chapters}  {title}', BOLD)}")

    def step(self, title: str, *details: str) -> None:
        """Show one thing that went well, and what proves it."""
        self._line(f"  {self._style('✓', GREEN)} {title}")
        for detail in details:
            self._line(f"      {self._style(printable(detail), DIM)}")

    def note(self, text: str) -> None:
        """Say what comes next."""
        self._line(f"  {self._style(text, DIM)}")

    def failure(self, text: str) -> None:
        """Show what went wrong."""
        self._line(f"  {self._style('✗', RED)} {printable(text)}")

    async def follow(self, app: Service, run: dict[str, Any]) -> Timeline:
        """Show a run until it ends: as it happens on a terminal, the finished picture elsewhere."""
        from cli_proj.waterfall import LiveWaterfall  # noqa: PLC0415 - imports rich

        last: list[Timeline] = []

        def remember(timeline: Timeline, _event: Event | None) -> None:
            last[:] = [timeline]

        if self.is_terminal:
            with LiveWaterfall() as picture:

                def show(timeline: Timeline, event: Event | None) -> None:
                    remember(timeline, event)
                    picture.change(timeline, event)

                await follow_run(app, run, show)
        else:
            await follow_run(app, run, remember)
            self._picture(last[0])
        return last[0]

    def summary(self, outcomes: Sequence[Outcome]) -> None:
        """Print the table at the end."""
        columns = (
            Column("workflow", lambda item: item["workflow"]),
            Column("type", lambda item: item["type"]),
            Column("result", lambda item: item["result"]),
            Column("duration", lambda item: moments.precise(item["seconds"]), align_right=True),
            Column("events", lambda item: item["events"], align_right=True),
        )
        from cli_proj.table import print_table  # noqa: PLC0415 - imports rich

        write("\n")
        print_table([asdict(outcome) for outcome in outcomes], columns)

    def _picture(self, timeline: Timeline) -> None:
        from rich.console import Console  # noqa: PLC0415

        from cli_proj.waterfall import draw  # noqa: PLC0415

        console = Console(width=PLAIN_WIDTH, highlight=False, markup=False, emoji=False, no_color=True)
        with console.capture() as captured:
            console.print(draw(timeline, width=PLAIN_WIDTH))
        for line in captured.get().splitlines():
            self._line(line.rstrip())

    def _style(self, text: str, *styles: int) -> str:
        return styled(text, *styles, stream=sys.stdout)

    def _line(self, text: str) -> None:
        write(text + "\n")
        sys.stdout.flush()
