"""The controls of a schedule's form: when, how, and what beside; each shows its error where it is."""

from typing import Final

import htpy as h

from gui_proj.controls import Controls
from gui_proj.schedule_words import CATCH_UPS, OVERLAPS

CRON_HINT: Final = "Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly."
ZONES: Final = ("UTC", "Europe/London", "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Tokyo")


class ScheduleControls(Controls):
    """Draws the controls of a schedule's draft."""

    def name(self) -> h.Element:
        """What the schedule is called."""
        hint = "Letters, digits, . _ and -; its address and the ids of its runs are made of it."
        return self.text(
            "name", "Name", hint=hint, required=True, maxlength="64", pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*"
        )

    def when(self, preview: h.Element) -> h.Element:
        """The timing, its bounds, and when it would be due; the page's script asks anew as somebody types."""
        return h.fieldset(".group", data_preview="/schedules/+preview")[
            h.legend["When"],
            self.error("when"),
            h.div(".alternatives")[
                self._alternative(
                    "cron",
                    "By the clock",
                    self.text("cron", "Cron expression", hint=CRON_HINT, style="code", maxlength="256"),
                    self.text("timezone", "Time zone", hint="UTC unless you name one.", list="zones", optional=True),
                    h.datalist("#zones")[(h.option(value=zone) for zone in ZONES)],
                ),
                self._alternative(
                    "every",
                    "At an interval",
                    self.duration("every", "Every"),
                    self.moment("start", "Counted from (UTC)", hint="From 1970 unless you say: each hour on the hour."),
                ),
                self._alternative(
                    "times",
                    "At certain times",
                    self.area("times", "Times", hint="One in each line, such as 2026-12-31T18:00:00Z (UTC)."),
                ),
            ],
            h.details(".more", open=self._is_given("since", "until"))[
                h.summary["First and last time"],
                h.div(".fields")[self.moment("since", "None before (UTC)"), self.moment("until", "None after (UTC)")],
            ],
            preview,
            h.button(".small", type="submit", name="_preview", value="1", formnovalidate=True)["Preview"],
        ]

    def policies(self) -> h.Element:
        """What becomes of times that collide or are missed."""
        return h.fieldset(".group")[
            h.legend["How"],
            self.select("overlap", "While a run of it is under way", OVERLAPS),
            self.select("catch_up", "Of several times that nobody was there for", CATCH_UPS),
            h.details(".more", open=self._has_errors("catch_up_window", "jitter", "queue", "tags"))[
                h.summary["More"],
                h.div(".fields")[
                    self.duration("catch_up_window", "Older times start nothing"),
                    self.duration("jitter", "Start each run later by up to", hint="So that not all come at once."),
                    self.text("queue", "Queue", hint="The workflow's unless you name one.", optional=True),
                    self.text("tags", "Tags", hint="Of its runs: team=blue, urgent", optional=True),
                ],
            ],
        ]

    def beginning(self) -> h.Element:
        """How a new one begins."""
        return h.fieldset(".group")[
            h.legend["To begin with"],
            self.check("paused", "Paused: start nothing until it is resumed"),
            self.text("note", "Note", hint="Why; shown with the schedule.", optional=True, maxlength="1000"),
        ]

    def _alternative(self, value: str, label: str, *inner: h.Node) -> h.Element:
        chosen = self.draft.texts["when"] == value
        return h.div(".alternative")[
            h.label(".choice")[h.input(type="radio", name="when", value=value, checked=chosen), label],
            h.div(".branch")[h.div(".fields")[inner]],
        ]

    def _is_given(self, *names: str) -> bool:
        return any(self.draft.texts[name] for name in names) or self._has_errors(*names)

    def _has_errors(self, *names: str) -> bool:
        return any(name in self.draft.errors for name in names)
