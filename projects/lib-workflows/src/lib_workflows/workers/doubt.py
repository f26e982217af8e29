"""Commits of which nobody heard the end: the runs they give to a life may be its own, and it does not know of them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 15.0  # a server that lost its client may still be committing


class Doubt:
    """Whether this life may hold runs it does not know of; open for a while after a commit that failed."""

    def __init__(self, on_doubt: Callable[[], None]) -> None:
        self._on_doubt = on_doubt
        self._until = 0.0  # by the event loop's time

    @property
    def is_open(self) -> bool:
        """Whether to look for such runs."""
        return asyncio.get_running_loop().time() < self._until

    @contextmanager
    def about_commit(self) -> Iterator[None]:
        """Around a commit that gives runs to this life: when it fails, it may be on disk all the same."""
        try:
            yield
        except BaseException:
            self._until = asyncio.get_running_loop().time() + LOOK_SECONDS
            self._on_doubt()
            raise
