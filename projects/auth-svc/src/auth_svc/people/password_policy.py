"""Which passwords may be chosen (NIST SP 800-63B section 3.1.1): long ones that no guesser's list holds.

No rules on kinds of letters: they make people choose what everybody chooses.
"""

import hashlib
import itertools
import re
import runpy
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from lib_events.settings import SettingsRejected

SHORTEST = 12
LONGEST = 256
BRAND = "eventbasedsvcs"
SHORTEST_CONTEXT = 4  # shorter names are in many words by chance
MOST_CONTEXT = 0.5  # a password of which a name is more than half is that name
HASH_LENGTH = 40
HASHED = re.compile(rb"[0-9A-F]{40}(:[0-9]+)?\r?\n?")
LONGEST_LINE = 64
TOO_SHORT = f"The password must have at least {SHORTEST} characters."
TOO_LONG = f"The password must have at most {LONGEST} characters."
COMMON = "Many people use that password or one like it, so it is guessed first; choose another."
A_NAME = "The password is little more than a name of yours or of this service; choose another."
BREACHED = "That password is known from a break-in elsewhere; choose another, and change it there as well."
LETTERS = re.compile(r"[\W_]+")
TRAILING = re.compile(r"[\d\W_]+$")


class PasswordRejected(Exception):
    """A new password does not fit the policy; the text is for the person who chose it."""


class PasswordPolicy:
    """Judges new passwords; `breached` is a file of SHA-1 hashes in order, as Have I Been Pwned publishes it."""

    def __init__(self, breached: Path | None = None) -> None:
        self._breached = None if breached is None else BreachedPasswords(breached)

    def check(self, password: str, context: Collection[str] = ()) -> None:
        """Raise `PasswordRejected` unless `password` may be used by somebody with the names in `context`."""
        if len(password) < SHORTEST:
            raise PasswordRejected(TOO_SHORT)
        if len(password) > LONGEST:
            raise PasswordRejected(TOO_LONG)
        plain = LETTERS.sub("", password.casefold()) or password
        if _is_common(plain):
            raise PasswordRejected(COMMON)
        if any(_is_mostly(plain, name) for name in _names(context)):
            raise PasswordRejected(A_NAME)
        if self._breached is not None and password in self._breached:
            raise PasswordRejected(BREACHED)


class BreachedPasswords:
    """A file of hashes far larger than memory: looked up by halving, never read whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                first = file.readline(LONGEST_LINE)
        except OSError as error:
            raise _not_a_list(path, error.strerror or "an error") from error
        if not HASHED.fullmatch(first):
            raise _not_a_list(path, "another format")

    def __contains__(self, password: str) -> bool:
        """Whether the file holds the hash of `password`."""
        wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
        with self._path.open("rb") as file:
            low, high = 0, file.seek(0, 2)  # the line begins after `low` and not after `high`
            while low < high:
                middle = (low + high) // 2
                found = _line_after(file, middle)[:HASH_LENGTH]
                if found == wanted:
                    return True
                if found and found < wanted:
                    low = middle + 1
                else:
                    high = middle
            file.seek(0)
            return file.readline(LONGEST_LINE)[:HASH_LENGTH] == wanted


@cache
def common_passwords() -> bytes:
    """The passwords that guessers try first, most of them short, one a line: 250 kB as bytes, ten times that as texts.

    The package is not imported: it would keep tables of everything else it guesses by.
    """
    package = find_spec("zxcvbn")
    assert package is not None  # noqa: S101 - we depend on it
    assert package.origin is not None  # noqa: S101
    listed = runpy.run_path(str(Path(package.origin).with_name("frequency_lists.py")))["FREQUENCY_LISTS"]["passwords"]
    words = listed.split(",") if isinstance(listed, str) else listed
    return ("\n" + "\n".join(words) + "\n").encode()


def _is_common(plain: str) -> bool:
    """Whether it is on the list, or a word of the list that was made longer in a way every guesser knows."""
    unit = _repeated(plain)
    candidates = {plain, unit, TRAILING.sub("", unit)}
    return len(set(plain)) <= 3 or _is_sequence(plain) or any(_is_listed(word) for word in candidates)


def _is_listed(word: str) -> bool:
    return bool(word) and f"\n{word}\n".encode() in common_passwords()


def _repeated(text: str) -> str:
    """What `text` repeats over and over, or `text` itself."""
    length = (text + text).find(text, 1)
    return text[:length]


def _is_sequence(text: str) -> bool:
    """Whether every sign follows its neighbour in the same direction: abcdef, 987654 and, by its end, 1234567890."""
    steps = {ord(after) - ord(before) for before, after in itertools.pairwise(text)}
    return steps <= {1, -9} or steps <= {-1, 9}


def _names(context: Collection[str]) -> list[str]:
    parts = [BRAND, *(part for name in context for part in (name, *re.split(r"[\W_]+", name)))]
    return [plain for part in parts if len(plain := LETTERS.sub("", part.casefold())) >= SHORTEST_CONTEXT]


def _is_mostly(plain: str, name: str) -> bool:
    return plain.count(name) * len(name) > len(plain) * MOST_CONTEXT


def _line_after(file: BinaryIO, position: int) -> bytes:
    """The first line that begins after `position`."""
    file.seek(position)
    file.readline(LONGEST_LINE)
    return file.readline(LONGEST_LINE)


def _not_a_list(path: Path, got: str) -> SettingsRejected:
    return SettingsRejected(
        "EVS_BREACHED_PASSWORDS must be a file of SHA-1 hashes in order (the download of Have I Been Pwned, "
        f"'ordered by hash'), got {path}: {got}"
    )
