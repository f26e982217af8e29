"""Texts as every database keeps them: what none takes is written in ASCII."""

TEXT_CHARACTERS = 16_000
NUL = "\0"


def is_whole(value: str) -> bool:
    """Whether a text has no half characters (lone surrogates)."""
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
