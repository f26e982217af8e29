"""Fixtures every member's tests share: databases, brokers, bounded waiting."""

import itertools
import os
import signal

import pytest

from lib_events import memory

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["lib_events.testing"]

COSTLY = frozenset(
    ("product", "short_lived", "browser", "chromium")
)  # a process starts one, for every test in it that asks

memory.load()


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: half of the time a test waits for another process."""
    return (os.cpu_count() or 1) * 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the workers' shares with what is costly to start: who is done early steals from their ends."""
    shares = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    costly = {item: item.path.parent for item in items if COSTLY.intersection(getattr(item, "fixturenames", ()))}
    groups = [list(group) for _, group in itertools.groupby(costly, costly.__getitem__)]
    others = iter([item for item in items if item not in costly])
    total, items[:] = len(items), []
    for share in range(shares):
        end = len(items) + (total - len(items)) // (shares - share)
        items += itertools.chain(*groups[share::shares])
        items += itertools.islice(others, max(0, end - len(items)))
    items += others


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not look at it again after every few tests."""
    memory.settle()
