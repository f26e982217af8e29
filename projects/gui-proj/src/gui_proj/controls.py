"""Controls of a form: each shows its label, its hint and its error where it is; and how their texts are read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import htpy as h

from gui_proj.form_input import as_number
from gui_proj.moments import UNITS, in_units

MOST_SECONDS: Final = 1e12  # far more than the AppService takes, and still a number in any unit


class Unreadable(ValueError):
    """A control's text that cannot be sent at all."""

    def __init__(self, control: str, problem: str) -> None:
        super().__init__(problem)
        self.control = control


class Draft(Protocol):
    """A form as it stands: the texts of its controls by name, and what is wrong with them."""

    @property
    def texts(self) -> Mapping[str, str]: ...

    @property
    def errors(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Controls:
    """Draws the controls of one draft."""

    draft: Draft

    def text(
        self, name: str, label: str, *, hint: str = "", style: str = "", optional: bool = False, **more: h.Attribute
    ) -> h.Element:
        """A line to type in."""
        attributes = self._described(name, hint) | {"value": self.draft.texts[name], "autocomplete": "off"} | more
        return self._row(name, label, h.input(attributes, class_=style or None, spellcheck="false"), hint, optional)

    def moment(self, name: str, label: str, *, hint: str = "") -> h.Element:
        """A day and a time, in UTC."""
        return self.text(name, label, hint=hint, optional=True, type="datetime-local", step="any")

    def area(self, name: str, label: str, *, hint: str) -> h.Element:
        """Several lines to type in."""
        area = h.textarea(".code", self._described(name, hint), rows="4", spellcheck="false")
        return self._row(name, label, area["\n" + self.draft.texts[name]], hint, optional=False)

    def select(self, name: str, label: str, choices: Mapping[str, str]) -> h.Element:
        """One of several."""
        chosen = self.draft.texts[name]
        options = (h.option(value=key, selected=key == chosen)[words] for key, words in choices.items())
        return self._row(name, label, h.select(self._described(name, ""))[options], "", optional=False)

    def duration(self, name: str, label: str, *, hint: str = "") -> h.Element:
        """A number and its unit; `read_duration` reads the two."""
        texts = self.draft.texts
        number = h.input(self._described(name, hint), value=texts[name], inputmode="decimal", autocomplete="off")
        unit = h.select(name=f"{name}_unit", aria_label=f"Unit of: {label}")[
            (h.option(value=each, selected=each == texts[f"{name}_unit"])[each] for each in UNITS)
        ]
        return self._row(name, label, h.div(".duration")[number, unit], hint, optional=False)

    def check(self, name: str, label: h.Node, *, hint: str = "") -> h.Element:
        """A box to tick."""
        return h.div(class_=["field", "check", {"wrong": name in self.draft.errors}])[
            h.input(
                self._described(name, hint), type="checkbox", value="true", checked=self.draft.texts[name] == "true"
            ),
            h.label(for_=name)[label],
            hint and h.p(".hint", id=f"{name}-hint")[hint],
            self.error(name),
        ]

    def error(self, name: str) -> h.Node:
        """What is wrong with a control."""
        words = self.draft.errors.get(name)
        return words and h.p(".error", id=f"{name}-error")[words]

    def _row(self, name: str, label: str, control: h.Node, hint: str, optional: bool) -> h.Element:  # noqa: FBT001
        return h.div(class_=["field", {"wrong": name in self.draft.errors}])[
            h.label(for_=name)[label, optional and h.span(".optional")["optional"]],
            hint and h.p(".hint", id=f"{name}-hint")[hint],
            control,
            self.error(name),
        ]

    def _described(self, name: str, hint: str) -> dict[str, h.Attribute]:
        wrong = name in self.draft.errors
        notes = [f"{name}-hint"] if hint else []
        notes += [f"{name}-error"] if wrong else []
        return {
            "id": name,
            "name": name,
            "aria-describedby": " ".join(notes) or None,
            "aria-invalid": "true" if wrong else None,
        }


def read_number(texts: Mapping[str, str], name: str) -> float:
    """What a control's text says; raises `Unreadable`."""
    number = as_number(texts[name])
    if number is None:
        raise Unreadable(name, f"must be a number, got “{texts[name][:40]}”")
    return number


def read_duration(texts: Mapping[str, str], name: str) -> float:
    """The seconds that a control and its unit say; raises `Unreadable`."""
    number = read_number(texts, name)
    if abs(number) > MOST_SECONDS:
        raise Unreadable(name, f"must be a number, got “{texts[name][:40]}”")
    return number * UNITS.get(texts[f"{name}_unit"], 1)


def duration_texts(name: str, seconds: float) -> Iterator[tuple[str, str]]:
    """The texts of a control and its unit for so many seconds."""
    number, unit = in_units(seconds)
    yield from {name: number, f"{name}_unit": unit}.items()
