"""Fixtures: real databases from lib_events, and a clean record of what steps did."""

import importlib.util
import sys
from pathlib import Path

import pytest

# The workflows under test, importable by name also in the processes that tests start.
FLOWS = (
    "flows",
    "queued_flows",
    "gathering_flows",
    "scheduled_flows",
    "scenarios",
    "process_steps",
    "worker_process",
    "storm",
    "crash_places",
    "interpreted_tasks",
    "interpreted_news",
    "interpreter",
    "crew",
    "drawn_programs",
    "played_programs",
)
for _name in FLOWS:
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    sys.modules[_name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])
flows = sys.modules["flows"]


@pytest.fixture(autouse=True)
def no_calls_yet():
    flows.calls.clear()


@pytest.fixture
def crash_places(draw):
    return sys.modules["crash_places"].CrashPlaces(draw)
