"""The browser of whoever sits at this machine, if somebody does."""

import os
import sys
import webbrowser


def is_here() -> bool:
    """Whether a browser would open where somebody sees it."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show(url: str) -> None:
    """Open a page."""
    webbrowser.open(url)
