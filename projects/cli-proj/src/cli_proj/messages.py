"""What `evs` says to the person: always on standard error, so that standard output carries data only."""

import os
import re
import signal
import sys
from contextlib import suppress
from typing import TextIO

# C0 and C1 controls but newline and tab: text from elsewhere must not steer the terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

BOLD, DIM, RED, YELLOW, GREEN, CYAN = 1, 2, 31, 33, 32, 36


def printable(text: object) -> str:
    """Return `text` with every control character shown instead of obeyed."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(text))


def styled(text: str, *styles: int, stream: TextIO | None = None) -> str:
    """Return `text` in ANSI `styles` where `stream` shows them (https://no-color.org)."""
    if not shows_colour(stream or sys.stderr):
        return text
    return f"\033[{';'.join(map(str, styles))}m{text}\033[0m"


def shows_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that should get colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def message(text: str = "") -> None:
    """Tell the person something; `text` may carry styles of ours. That nobody listens any more stops nothing."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is where messages are printed


def ask(question: str) -> str:
    """Return what the person answers; Ctrl-D is no answer, and Ctrl-C ends the command at once."""
    # asyncio's own handler would tell its loop, which cannot hear while we wait here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(question, end=" ", file=sys.stderr, flush=True)  # noqa: T201 - input() would ask on standard output
        return input().strip()
    except EOFError:
        message()
        return ""
    finally:
        signal.signal(signal.SIGINT, before)


def error_message(text: str, hint: str | None = None) -> None:
    """Say what went wrong and what to do next."""
    message(f"{styled('error:', BOLD, RED)} {printable(text)}")
    if hint:
        message(f"{styled('  try:', DIM)} {printable(hint)}")


def is_interactive() -> bool:
    """Whether there is a person to ask: both ends of the conversation are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()
