"""Fixtures every member's tests share: databases, brokers, bounded waiting."""

import gc
import os
import signal

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["lib_events.testing"]


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: half of the time a test waits for another process."""
    return (os.cpu_count() or 1) * 2


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not look at it again after every few tests."""
    gc.collect()
    gc.freeze()
