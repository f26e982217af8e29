"""How a schedule looks to a person: as a row, as a whole, and what became of a command on it."""

from cli_proj import moments
from cli_proj.column import Column, Item
from cli_proj.messages import message, printable
from cli_proj.printing import print_fields, write


def state_of(schedule: Item) -> str:
    """In one word whether it starts anything."""
    if schedule["paused"]:
        return "paused"
    return "active" if schedule["next_at"] or schedule["waiting_since"] else "over"


def when(schedule: Item) -> str:
    """Its timing as a person says it."""
    if schedule["times"]:
        return ", ".join(schedule["times"])
    cron, seconds = schedule["cron"], schedule["every_seconds"]
    often = f"{cron} ({schedule['timezone']})" if cron else f"every {moments.written(seconds)}"
    bounds = (f", {word} {schedule[word]}" for word in ("since", "until") if schedule[word])
    return often + "".join(bounds)


COLUMNS = (
    Column("name", lambda schedule: schedule["name"]),
    Column("state", state_of, is_status=True),
    Column("workflow", lambda schedule: schedule["workflow"]),
    Column("next", lambda schedule: moments.ahead(schedule["next_at"]), align_right=True),
    Column("fired", lambda schedule: schedule["fired"], align_right=True, is_optional=True),
    Column("skipped", lambda schedule: schedule["skipped"], align_right=True, is_optional=True),
    Column("when", when, is_wide=True),
)
RUN_COLUMNS = (
    Column("run", lambda run: run["id"], is_wide=True),
    Column("status", lambda run: run["status"] or "gone", is_status=True),
    Column("why", lambda run: run["kind"]),
    Column("age", lambda run: moments.age(run["started_at"]), align_right=True),
)
FIELDS = (
    "name", "workflow", "input", "when", "state", "note", "overlap", "catch_up", "queue", "tags", "principal_name",
    "acts_until",
    "next_times", "waiting_since", "fired", "skipped", "created_at",
)  # fmt: skip


def show_schedule(schedule: Item) -> None:
    """Print a schedule for a person: facts, next times, last runs."""
    shown = dict(schedule) | {"when": when(schedule), "state": state_of(schedule)}
    print_fields((name, shown[name]) for name in FIELDS)
    if schedule["last_runs"]:
        write("\n")
        from cli_proj.table import print_table  # noqa: PLC0415 - only people need tables

        print_table(schedule["last_runs"], RUN_COLUMNS)


def show_state(schedule: Item) -> None:
    """Print in one line whether it starts anything, and when."""
    coming = moments.ahead(schedule["next_at"])
    text = f"{state_of(schedule)}: {schedule['name']}" + (f", next {coming}" if coming else "")
    write(printable(text) + "\n")


def show_started(started: Item) -> None:
    """Print the ids of runs that were started."""
    for run in started["runs"]:
        write(printable(run) + "\n")


def show_backfill(filled: Item) -> None:
    """Print the ids of the runs that fill a range, or the times that have none."""
    for each in filled["runs"] or filled["times"]:
        write(printable(each) + "\n")
    if not filled["runs"] and not filled["times"]:
        message("every time in the range has its run")


def show_times(found: Item) -> None:
    """Print the next times of a timing."""
    for each in found["next_times"]:
        write(f"{each}  {moments.ahead(each)}\n")
    if not found["next_times"]:
        message("none of its times is to come")
