"""Why a run has not begun: what its queue says to whoever may see it, and the plain word to everybody else."""

from datetime import UTC, datetime, timedelta
from typing import Final

import htpy as h

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card
from gui_proj.moments import parse
from gui_proj.queue_words import is_full, link_to_queue, taken_words, turn_words
from gui_proj.resources import Queue, Run
from gui_proj.visit import Visit

SOON: Final = timedelta(seconds=2)  # a run that nothing holds back begins before anybody has read why it waits


async def queue_of(visit: Visit, run: Run) -> Queue | None:
    """The queue of a run that has not begun, for operators to see."""
    if run["status"] != "queued" or not visit.may_manage:
        return None
    try:
        found: Queue = await visit.get(f"/v1{link_to_queue(run['queue'])}")
    except AppServiceRefused:
        return None  # the page of a run shows the run, whatever is with its queue
    return found


def held_card(run: Run, queue: Queue | None, *, now: datetime | None = None) -> h.Node:
    """Why a run has not begun; `queue` is its queue where one may see it. Nothing where it is about to begin."""
    if run["status"] != "queued":
        return None
    words = _why_it_waits(queue) if queue is not None else None
    if words is None:
        created = parse(run["created_at"])
        if created is None or (now or datetime.now(UTC)) - created < SOON:
            return None
        words = (["Waits in its queue, ", run["queue"]], "")
    what, more = words
    return card(h.div(".pad")[h.p[h.b[what], more and f": {more.rstrip('.')}", "."]], style="waiting")


def _why_it_waits(queue: Queue) -> tuple[h.Node, str] | None:
    """What keeps runs of the queue from beginning, and more of it; None where nothing does."""
    link = h.a(href=link_to_queue(queue["name"]))[queue["name"]]
    if queue["paused"]:
        return ["Queue ", link, " is paused"], queue["note"]
    if not queue["due"]:  # its time has not come
        return None
    if is_full(queue):
        return ["Waits for a slot of queue ", link], taken_words(queue)
    if queue["rate"] or queue["per_key"] or queue["rate_per_key"]:
        return ["Waits for its turn in queue ", link], ", ".join(turn_words(queue))
    return None
