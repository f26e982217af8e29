"""Fixtures every member's tests share: databases, brokers, bounded waiting."""

import itertools
import os
import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.util import LRUCache

from lib_events import memory

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["lib_events.testing"]

# A process starts one, for every test in it that asks.
COSTLY = frozenset(("product", "short_lived", "browser", "chromium"))
COMPILED_STATEMENTS = 2_000

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


@pytest.fixture(scope="session", autouse=True)
def statements_compiled_once() -> Iterator[None]:
    """Let databases of a kind share what is compiled: a test opens its own, and would compile every statement anew."""
    dialects: dict[type[Dialect], Dialect] = {}
    compiled: LRUCache[object, object] = LRUCache(COMPILED_STATEMENTS)

    def share(connection: Connection) -> None:
        connection.dialect = dialects.setdefault(type(connection.dialect), connection.dialect)
        connection.execution_options(compiled_cache=compiled)

    event.listen(Engine, "engine_connect", share)
    yield
    event.remove(Engine, "engine_connect", share)
