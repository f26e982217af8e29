"""How a queue reads: whether its runs begin, how much of it is taken, and what waits in it."""

from urllib.parse import quote

import htpy as h

from gui_proj.components import counted, pill
from gui_proj.moments import ago, interval_words
from gui_proj.resources import Queue, QueueRate


def link_to_queue(name: str, *more: str) -> str:
    """The address of a queue, or of something below it."""
    return "/".join(["/queues", quote(name, safe=""), *more])


def state_of(queue: Queue) -> str:
    """In one word whether its runs begin."""
    if queue["paused"]:
        return "paused"
    return "full" if is_full(queue) else "open"


def is_full(queue: Queue) -> bool:
    """Whether a run has to end before another one begins."""
    return queue["concurrency"] is not None and queue["under_way"] >= queue["concurrency"]


def state_pill(queue: Queue) -> h.Element:
    return pill(state_of(queue))


def is_to_come(queue: Queue) -> bool:
    """Whether runs of it begin at a time: nothing tells that it has come."""
    has_rate = queue["rate"] is not None or queue["rate_per_key"] is not None
    return queue["queued"] > queue["due"] or (has_rate and queue["due"] > 0)


def limit_words(queue: Queue) -> str:
    """Its limits in one line."""
    most = queue["concurrency"]
    words = [f"at most {most:,} under way"] if most is not None else []
    return ", ".join([*words, *turn_words(queue)]) or "no limits"


def turn_words(queue: Queue) -> list[str]:
    """What beside its slots decides when a run has its turn."""
    key, most = queue["key"], queue["per_key"]
    words = [f"turns by {key}" if most is None else f"at most {most:,} of each {key}"] if key else []
    rates = {"": queue["rate"], f"of each {key} ": queue["rate_per_key"]}
    return [*words, *(_rate_words(rate, whose) for whose, rate in rates.items() if rate is not None)]


def _rate_words(rate: QueueRate, whose: str) -> str:
    begin = "begins" if rate["runs"] == 1 else "begin"
    return f"at most {rate['runs']:,} {whose}{begin} in {interval_words(rate['seconds'])}"


def load(queue: Queue) -> h.Node:
    """How many of its runs are under way, and as a bar of how many may be."""
    most, taken = queue["concurrency"], queue["under_way"]
    if most is None:
        return h.div(".load")[h.span[h.b[f"{taken:,}"], " under way"]]
    return h.div(".load")[
        h.progress(
            class_={"full": taken >= most}, max=str(most), value=str(min(taken, most)), aria_label="Slots taken"
        ),
        h.span[h.b[f"{taken:,} of {most:,}"], " under way"],
    ]


def waits(queue: Queue) -> h.Node:
    """What has not begun: since when the first of them waits, and what comes later."""
    due, later = queue["due"], queue["queued"] - queue["due"]
    if not queue["queued"]:
        return h.span(".muted")["nothing waits"]
    return [
        due == 1 and [h.b["1"], " waits, since ", ago(queue["due_since"])],
        due > 1 and [h.b[f"{due:,}"], " wait, the first since ", ago(queue["due_since"])],
        due > 0 and later > 0 and "; ",
        later > 0 and f"{later:,} to begin later",
    ]


def taken_words(queue: Queue) -> str:
    """How many slots are taken; more than there are, where it was limited with more under way."""
    most, taken = queue["concurrency"] or 0, queue["under_way"]
    if taken > most:
        return f"{counted(taken, 'run')} under way, where {most:,} may be"
    return f"{taken:,} of {most:,} {'is' if taken == 1 else 'are'} taken"
