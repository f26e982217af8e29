"""Fixtures every member's tests share: databases, brokers, bounded waiting."""

import os

pytest_plugins = ["lib_events.testing"]


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: half of the time a test waits for another process."""
    return (os.cpu_count() or 1) + 1
