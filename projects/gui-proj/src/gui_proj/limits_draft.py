"""The limits of a queue as their form has them: texts of controls, and what of them is sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gui_proj.controls import duration_texts, read_duration, read_number
from gui_proj.resources import Queue

DEFAULTS: Final = {"concurrency": "", "rate_runs": "", "rate_seconds": "1", "rate_seconds_unit": "min"}
# Where the AppService names a field otherwise than the form does.
CONTROLS: Final = {"/rate": "rate_runs", "/rate/runs": "rate_runs", "/rate/seconds": "rate_seconds"}


@dataclass(frozen=True, slots=True)
class LimitsDraft:
    """The texts of the controls, and what is wrong with them; no number: no limit."""

    texts: Mapping[str, str] = field(default_factory=lambda: DEFAULTS)
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text_of: Callable[[str], str]) -> "LimitsDraft":
        """What a person has filled in."""
        return cls({name: text_of(name) for name in DEFAULTS})

    @classmethod
    def of(cls, queue: Queue) -> "LimitsDraft":
        """The limits that a queue has."""
        texts, rate = dict(DEFAULTS), queue["rate"]
        if queue["concurrency"] is not None:
            texts["concurrency"] = str(queue["concurrency"])
        if rate is not None:
            texts |= {"rate_runs": str(rate["runs"]), **dict(duration_texts("rate_seconds", rate["seconds"]))}
        return cls(texts)

    def body(self) -> dict[str, Any]:
        """What is sent; raises `Unreadable`."""
        texts, rate = self.texts, None
        if texts["rate_runs"]:
            rate = {"runs": read_number(texts, "rate_runs"), "seconds": read_duration(texts, "rate_seconds")}
        return {"concurrency": read_number(texts, "concurrency") if texts["concurrency"] else None, "rate": rate}

    def with_errors(self, found: Mapping[str, str]) -> "LimitsDraft":
        """The same with the AppService's errors, by JSON Pointer, at their controls."""
        return replace(self, errors={CONTROLS.get(name, name.removeprefix("/")): found[name] for name in found})
