"""Texts that people and programs give: names, ids and reasons are checked where they are given."""

from lib_events.texts import NUL, TEXT_CHARACTERS, is_whole
from lib_workflows.errors import TextInvalid

NAME_CHARACTERS = 256


def check_name(value: str, what: str, limit: int = NAME_CHARACTERS) -> str:
    """Return a name or id; raises `TextInvalid`."""
    if not value:
        raise TextInvalid(what, value, limit)
    return check_text(value, what, limit)


def check_text(value: str, what: str, limit: int = TEXT_CHARACTERS) -> str:
    """Return a text for people, which may be empty; raises `TextInvalid`."""
    if (
        not isinstance(value, str)
        or len(value) > limit
        or NUL in value
        or (not value.isascii() and not is_whole(value))
    ):
        raise TextInvalid(what, value, limit)
    return value
