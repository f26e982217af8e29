"""Reads a web page as a visitor without JavaScript would: its text and its forms."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

IGNORED_INPUTS = frozenset(("submit", "button", "reset", "image"))


@dataclass(slots=True)
class Form:
    """A form as it stands on the page, filled in with what the page says."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    buttons: list[tuple[str, str]] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """The names of everything that can be filled in."""
        return {name for name, _ in self.fields} | set(self.files)

    def filled(self, values: dict[str, str]) -> list[tuple[str, str]]:
        """What is sent when `values` are put into the form."""
        kept = [(name, value) for name, value in self.fields if name not in values]
        return [*kept, *values.items()]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: where it is, what it says, what can be sent from it."""

    url: str
    status: int
    title: str
    text: str
    forms: tuple[Form, ...]

    def form(self, path: str) -> Form:
        """Return the form that is sent to `path`; raises `LookupError`."""
        for form in self.forms:
            if form.action.split("?")[0].endswith(path):
                return form
        actions = ", ".join(form.action for form in self.forms) or "no form at all"
        raise LookupError(f"the page {self.url} must have a form for {path}, got {actions}")


def read_page(url: str, status: int, html: str) -> Page:
    """Read the HTML of a page."""
    reader = _Reader(url)
    reader.feed(html)
    reader.close()
    return Page(
        url, status, " ".join(reader.title.split()), " ".join(" ".join(reader.words).split()), tuple(reader.forms)
    )


class _Reader(HTMLParser):
    """Collects forms and visible words."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.title = ""
        self.words: list[str] = []
        self.forms: list[Form] = []
        self._url = url
        self._form: Form | None = None
        self._inside: list[str] = []
        self._select: str | None = None
        self._chosen: str | None = None
        self._area: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in what opens."""
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "style", "title"):
            self._inside.append(tag)
        elif tag == "form":
            action = urljoin(self._url, given.get("action") or self._url)
            self._form = Form(action, given.get("method", "get").lower())
            self.forms.append(self._form)
        elif self._form is not None:
            self._control(tag, given, self._form)

    def handle_endtag(self, tag: str) -> None:
        """Take in what closes."""
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()
        elif tag == "form":
            self._form = None
        elif tag == "select" and self._form is not None and self._select:
            self._form.fields.append((self._select, self._chosen or ""))
            self._select = self._chosen = None
        elif tag == "textarea" and self._form is not None and self._area is not None:
            name, words = self._area
            self._form.fields.append((name, "".join(words).removeprefix("\n")))
            self._area = None

    def handle_data(self, data: str) -> None:
        """Take in text."""
        if self._area is not None:
            self._area[1].append(data)
        elif not self._inside:
            self.words.append(data)
        elif self._inside[-1] == "title":
            self.title += data

    def _control(self, tag: str, given: dict[str, str], form: Form) -> None:
        name = given.get("name", "")
        if tag == "button" and name:
            form.buttons.append((name, given.get("value", "")))
        elif tag == "input" and name:
            self._input(given, form)
        elif tag == "select":
            self._select, self._chosen = name, None
        elif tag == "option" and ("selected" in given or self._chosen is None):
            self._chosen = given.get("value", "")
        elif tag == "textarea":
            self._area = (name, [])

    def _input(self, given: dict[str, str], form: Form) -> None:
        kind = given.get("type", "text").lower()
        if kind == "file":
            form.files.append(given["name"])
        elif kind in ("checkbox", "radio"):
            if "checked" in given:
                form.fields.append((given["name"], given.get("value", "on")))
        elif kind not in IGNORED_INPUTS:
            form.fields.append((given["name"], given.get("value", "")))
