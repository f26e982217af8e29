"""What something new may be called, in each of the ways in which it is written."""

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from cli_proj.failure import conflict, usage

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 40  # so that the lines of a template, with the name in them, stay within 120 characters
# A service's settings begin with its name, beside those that every member has: EVS_AUTH_PORT, EVS_DATABASE_URL.
TAKEN_BY_SETTINGS = frozenset(("app", "app-database", "auth", "auth-database", "database", "gui", "nats"))


@dataclass(frozen=True, slots=True)
class Name:
    """A name as it was checked: `daily-report`."""

    text: str

    @property
    def package(self) -> str:
        """As Python writes it: `daily_report`."""
        return self.text.replace("-", "_")

    @property
    def variable(self) -> str:
        """As the environment writes it: `DAILY_REPORT`."""
        return self.package.upper()


def read_name(given: str) -> Name:
    """The name that was given, with `_` or `-` between its words; raises a usage error that says what is wrong."""
    text = given.replace("_", "-")
    if NAME.fullmatch(text) is None or len(text) > LONGEST:
        raise usage(
            f"a name must be at most {LONGEST} lower-case letters and digits, words with - between them and a letter "
            f"first, got {given!r}",
            hint="daily-report",
        )
    name = Name(text)
    if keyword.iskeyword(name.package) or keyword.issoftkeyword(name.package):
        raise usage(f"a name must be no word of Python's own, got {given!r}", hint=f"my-{text}")
    if name.package in sys.stdlib_module_names or name.package in ("test", "tests"):
        raise usage(f"a name must be none of Python's modules, got {given!r}", hint=f"my-{text}")
    return name


def refuse_imported(name: Name) -> None:
    """Refuse a name under which Python already finds a package: one would hide the other."""
    found = find_spec(name.package)
    if found is not None and found.origin is not None:  # a folder that happens to lie there is no package
        raise conflict(
            f"a name must be free, got {name.text!r}: the package {name.package} is installed", hint=f"my-{name.text}"
        )


def refuse_settings(name: Name) -> None:
    """Refuse a service's name whose settings would be those of the product."""
    if name.text in TAKEN_BY_SETTINGS:
        raise conflict(
            f"a name must leave the product its settings, got {name.text!r}: there is EVS_{name.variable}_URL already",
            hint=f"my-{name.text}",
        )
