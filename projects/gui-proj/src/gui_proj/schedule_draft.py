"""A schedule as its form has it: texts of controls, read from a schedule or a person, and what of them is sent."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gui_proj.controls import duration_texts, read_duration
from gui_proj.form_input import with_zone
from gui_proj.input_draft import read_tags
from gui_proj.resources import Schedule

DEFAULTS: Final = {
    "name": "",
    "when": "cron",
    "cron": "0 6 * * mon-fri",
    "timezone": "",
    "every": "1",
    "every_unit": "h",
    "start": "",
    "times": "",
    "since": "",
    "until": "",
    "overlap": "skip",
    "catch_up": "one",
    "catch_up_window": "1",
    "catch_up_window_unit": "d",
    "jitter": "0",
    "jitter_unit": "s",
    "queue": "",
    "tags": "",
    "acts_for_me": "",
    "paused": "",
    "note": "",
}
# Which controls say more about a timing: an error at one that is not shown stands at the choice itself.
BRANCHES: Final = {"cron": ("cron", "timezone"), "every": ("every", "start"), "times": ("times",)}
# Where the AppService names a field otherwise than the form does.
CONTROLS: Final = {"every_seconds": "every", "catch_up_window_seconds": "catch_up_window", "jitter_seconds": "jitter"}


@dataclass(frozen=True, slots=True)
class ScheduleDraft:
    """The texts of the controls, and what is wrong with them."""

    texts: Mapping[str, str] = field(default_factory=lambda: DEFAULTS)
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text_of: Callable[[str], str]) -> "ScheduleDraft":
        """What a person has filled in."""
        return cls({name: text_of(name) for name in DEFAULTS} | {"when": _branch(text_of("when"))})

    @classmethod
    def of(cls, schedule: Schedule, *, acts_for_me: bool) -> "ScheduleDraft":
        """A schedule there is."""
        texts = DEFAULTS | dict(_texts_of(schedule))
        return cls(texts | {"acts_for_me": "true" if acts_for_me else ""})

    def timing(self) -> dict[str, Any]:
        """When, as the AppService takes it; raises `Unreadable`."""
        found = TIMINGS[self.texts["when"]](self.texts)
        if self.texts["when"] != "times":
            found |= {name: _moment(self.texts[name]) for name in ("since", "until")}
        return {name: value for name, value in found.items() if value is not None}

    def policies(self) -> dict[str, Any]:
        """How, likewise."""
        texts = self.texts
        return {
            "overlap": texts["overlap"],
            "catch_up": texts["catch_up"],
            "catch_up_window_seconds": read_duration(texts, "catch_up_window"),
            "jitter_seconds": read_duration(texts, "jitter"),
            "queue": texts["queue"] or None,
            "tags": read_tags(texts["tags"]),
        }

    def with_errors(self, found: Mapping[str, str]) -> "ScheduleDraft":
        """The same with the AppService's errors, by JSON Pointer, at their controls."""
        return replace(self, errors={self._control(pointer): words for pointer, words in found.items()})

    def _control(self, pointer: str) -> str:
        name = pointer.split("/")[1] if "/" in pointer else ""
        name = CONTROLS.get(name, name)
        shown = BRANCHES[self.texts["when"]]
        return "when" if name not in shown and any(name in branch for branch in BRANCHES.values()) else name


def _branch(text: str) -> str:
    return text if text in BRANCHES else "cron"


def _texts_of(schedule: Schedule) -> Iterator[tuple[str, str]]:
    yield "name", schedule["name"]
    if schedule["times"]:
        yield from {"when": "times", "times": "\n".join(schedule["times"])}.items()
    elif schedule["cron"]:
        yield from {"cron": schedule["cron"], "timezone": schedule["timezone"] or ""}.items()
    else:
        yield from {"when": "every", "start": _local(schedule["start"])}.items()
        yield from duration_texts("every", schedule["every_seconds"] or 0)
    yield from {name: _local(schedule[name]) for name in ("since", "until")}.items()
    yield from {name: schedule[name] for name in ("overlap", "catch_up")}.items()
    yield from duration_texts("catch_up_window", schedule["catch_up_window_seconds"])
    yield from duration_texts("jitter", schedule["jitter_seconds"])
    yield "queue", schedule["queue"] or ""
    yield "tags", ", ".join(f"{name}={value}" if value else name for name, value in schedule["tags"].items())


def _local(moment: str | None) -> str:
    """As a control for a day and a time shows it: in UTC, without saying so."""
    return (moment or "").removesuffix("Z").removesuffix("+00:00")


def _moment(text: str) -> str | None:
    return with_zone(text) if text else None


def _cron(texts: Mapping[str, str]) -> dict[str, Any]:
    return {"cron": texts["cron"], "timezone": texts["timezone"] or None}


def _every(texts: Mapping[str, str]) -> dict[str, Any]:
    return {"every_seconds": read_duration(texts, "every"), "start": _moment(texts["start"])}


def _times(texts: Mapping[str, str]) -> dict[str, Any]:
    return {"times": [with_zone(line.strip()) for line in texts["times"].splitlines() if line.strip()]}


TIMINGS: Final = {"cron": _cron, "every": _every, "times": _times}
