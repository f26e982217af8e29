"""Texts that a database keeps as they are: names, ids and reasons are checked where they are given, errors made fit."""

from lib_workflows.errors import TextInvalid

NAME_CHARACTERS = 256
TEXT_CHARACTERS = 16_000
NUL = "\0"


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
        or (not value.isascii() and not _is_whole(value))
    ):
        raise TextInvalid(what, value, limit)
    return value


def _is_whole(value: str) -> bool:
    """Whether it has no half characters (lone surrogates)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def fit(text: str, limit: int = TEXT_CHARACTERS) -> str:
    """Any text as it can be kept: its end is cut, and what no database takes is written in ASCII."""
    return text[:limit].replace(NUL, "\\0").encode(errors="backslashreplace").decode()


def message_of(error: BaseException) -> str:
    """What an exception says, also one that cannot say it."""
    try:
        return fit(str(error))
    except Exception as unsaid:  # noqa: BLE001 - its `__str__` is anybody's code
        return f"(its text cannot be had: {type(unsaid).__name__})"
