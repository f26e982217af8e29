"""The limits of a queue as their form has them: texts of controls, and what of them is sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gui_proj.controls import duration_texts, read_duration, read_number
from gui_proj.resources import Queue

RATES: Final = ("rate", "rate_per_key")
NUMBERS: Final = ("concurrency", "per_key")
DEFAULTS: Final = dict.fromkeys((*NUMBERS, "key"), "") | {
    f"{rate}_{what}": text for rate in RATES for what, text in (("runs", ""), ("seconds", "1"), ("seconds_unit", "min"))
}
# Where the AppService names a field otherwise than the form does.
CONTROLS: Final = {f"/{rate}": f"{rate}_runs" for rate in RATES} | {
    f"/{rate}/{what}": f"{rate}_{what}" for rate in RATES for what in ("runs", "seconds")
}


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
        numbers = {"concurrency": queue["concurrency"], "per_key": queue["per_key"]}
        texts = {**DEFAULTS, "key": queue["key"] or ""}
        texts |= {name: str(number) for name, number in numbers.items() if number is not None}
        for name, rate in (("rate", queue["rate"]), ("rate_per_key", queue["rate_per_key"])):
            if rate is not None:
                texts |= {f"{name}_runs": str(rate["runs"]), **dict(duration_texts(f"{name}_seconds", rate["seconds"]))}
        return cls(texts)

    def body(self) -> dict[str, Any]:
        """What is sent; raises `Unreadable`."""
        numbers = {name: read_number(self.texts, name) if self.texts[name] else None for name in NUMBERS}
        return {**numbers, "key": self.texts["key"] or None, **{name: self._rate(name) for name in RATES}}

    def _rate(self, name: str) -> dict[str, Any] | None:
        if not self.texts[f"{name}_runs"]:
            return None
        runs, seconds = read_number(self.texts, f"{name}_runs"), read_duration(self.texts, f"{name}_seconds")
        return {"runs": runs, "seconds": seconds}

    def with_errors(self, found: Mapping[str, str]) -> "LimitsDraft":
        """The same with the AppService's errors, by JSON Pointer, at their controls."""
        return replace(self, errors={CONTROLS.get(name, name.removeprefix("/")): found[name] for name in found})
