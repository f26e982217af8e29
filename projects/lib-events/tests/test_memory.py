"""What the garbage collector is told when a service starts, and when it has started."""

import gc

import pytest

from lib_events import memory


@pytest.fixture
def as_before():
    thresholds = gc.get_threshold()
    yield
    gc.enable()
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def test_what_is_loaded_stays_and_what_comes_later_is_still_collected(as_before):
    memory.load()
    assert not gc.isenabled()
    memory.settle()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == memory.YOUNG_OBJECTS
    circle = []
    circle.append(circle)
    del circle
    assert gc.collect() >= 1
