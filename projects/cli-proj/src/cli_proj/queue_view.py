"""How a queue looks to a person: as a row, as a whole, and what became of a command on it."""

from cli_proj import moments
from cli_proj.column import Column, Item
from cli_proj.messages import printable
from cli_proj.printing import print_fields, write


def state_of(queue: Item) -> str:
    """In one word whether its runs begin."""
    if queue["paused"]:
        return "paused"
    is_full = queue["concurrency"] is not None and queue["under_way"] >= queue["concurrency"]
    return "full" if is_full else "open"


def rate_of(queue: Item, limit: str = "rate") -> str:
    """Its rate as `--rate` takes it, or that of each key as `--rate-per-key` does."""
    rate = queue[limit]
    return f"{rate['runs']}/{moments.written(rate['seconds'])}" if rate else ""


def _under_way(queue: Item) -> str:
    most = queue["concurrency"]
    return str(queue["under_way"]) if most is None else f"{queue['under_way']} of {most}"


COLUMNS = (
    Column("name", lambda queue: queue["name"]),
    Column("state", state_of, is_status=True),
    Column("under way", _under_way, align_right=True),
    Column("queued", lambda queue: queue["queued"], align_right=True),
    Column("waits", lambda queue: moments.age(queue["due_since"]), align_right=True),
    Column("rate", rate_of, is_optional=True),
    Column("note", lambda queue: queue["note"], is_optional=True),
    Column("workflows", lambda queue: ", ".join(queue["workflows"]), is_wide=True),
)
FIELDS = (
    "name", "state", "note", "under_way", "queued", "due", "due_since", "concurrency", "rate", "key", "per_key",
    "rate_per_key", "declared", "workflows",
)  # fmt: skip


def show_queue(queue: Item) -> None:
    """Print a queue for a person."""
    shown = dict(queue) | {"state": state_of(queue), "under_way": _under_way(queue), "rate": rate_of(queue)}
    shown["rate_per_key"] = rate_of(queue, "rate_per_key")
    shown["workflows"] = ", ".join(queue["workflows"])
    print_fields((name, shown[name]) for name in FIELDS)


def show_state(queue: Item) -> None:
    """Print in one line whether its runs begin, and how many."""
    limits = [f"at most {queue['concurrency']} under way"] if queue["concurrency"] is not None else []
    limits += [f"at most {rate_of(queue)} begin"] if queue["rate"] else []
    limits += [f"turns by {queue['key']}"] if queue["key"] else []
    limits += [f"at most {queue['per_key']} of each under way"] if queue["per_key"] is not None else []
    limits += [f"at most {rate_of(queue, 'rate_per_key')} of each begin"] if queue["rate_per_key"] else []
    text = f"{state_of(queue)}: {queue['name']}, {', '.join(limits) or 'no limits'}"
    write(printable(text) + "\n")
