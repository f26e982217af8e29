"""How a schedule reads: its state, its timing, its policies, and a table of the times it is due."""

from collections.abc import Sequence
from typing import Final

import htpy as h

from gui_proj.components import card, pill
from gui_proj.moments import ahead, interval_words, utc_words
from gui_proj.resources import Schedule

OVERLAPS: Final = {
    "skip": "skip the time",
    "allow": "start another run beside it",
    "buffer_one": "let one time wait until it has ended",
    "cancel_other": "cancel it, then start",
}
CATCH_UPS: Final = {"one": "the last one starts a run", "all": "each starts a run"}
KINDS: Final = {"due": "its time", "waited": "its time, after waiting", "trigger": "by hand", "backfill": "backfill"}


def state_of(schedule: Schedule) -> str:
    """In one word whether it starts anything."""
    if schedule["paused"]:
        return "paused"
    return "active" if schedule["next_at"] or schedule["waiting_since"] else "over"


def state_pill(schedule: Schedule) -> h.Element:
    return pill(state_of(schedule))


def timing_words(schedule: Schedule) -> h.Node:
    """When, as a person says it."""
    if schedule["times"]:
        count = len(schedule["times"])
        return f"{count} times" if count > 1 else "once"
    if schedule["cron"]:
        return [h.code[schedule["cron"]], " ", schedule["timezone"]]
    return f"every {interval_words(schedule['every_seconds'] or 0)}"


def owner_of(schedule: Schedule) -> h.Node:
    """In whose name its runs start."""
    if schedule["principal"] is None:
        return h.span(".muted")["nobody's: it is declared in code"]
    return schedule["principal_name"] or h.span(".mono")[schedule["principal"]]


def times_table(times: Sequence[str], timezone: str | None, *, caption: str) -> h.Element:
    """Each time on the clock of whoever looks, on the schedule's own and in UTC; only the page's script knows two."""
    own = timezone if timezone not in (None, "UTC") else None
    return h.div(".scroll")[
        h.table(".times")[
            h.caption(".hidden")[caption],
            h.thead[
                h.tr[
                    h.th(scope="col")["Next"],
                    h.th(".local", scope="col")["Your time", h.span(data_zone_here=True)],
                    own and h.th(".local", scope="col")[own],
                    h.th(scope="col")["UTC"],
                ]
            ],
            h.tbody[
                (
                    h.tr[
                        h.td[ahead(each)],
                        h.td(".local")[h.time(datetime=each, data_local=True)],
                        own and h.td(".local.muted", data_zone=own)[h.time(datetime=each, data_local=own)],
                        h.td(".muted", data_zone="UTC")[utc_words(each)],
                    ]
                    for each in times
                )
            ],
        ]
    ]


def next_times_card(schedule: Schedule) -> h.Element:
    """The times that are to come."""
    times = schedule.get("next_times") or []
    if not times:
        return card(h.p(".muted.pad")["None of its times is to come."], title="Next times")
    hint = schedule["paused"] and h.span(".muted")["if it were not paused"]
    return card(times_table(times, schedule["timezone"], caption="Next times"), title="Next times", action=hint)
