"""Fixtures: real databases from lib_events, and a clean record of what steps did."""

import importlib.util
import sys
from pathlib import Path

import pytest

# The workflows under test, importable by name also in the processes that tests start.
_spec = importlib.util.spec_from_file_location("flows", Path(__file__).with_name("flows.py"))
flows = importlib.util.module_from_spec(_spec)
sys.modules["flows"] = flows
_spec.loader.exec_module(flows)


@pytest.fixture(autouse=True)
def no_calls_yet():
    flows.calls.clear()
