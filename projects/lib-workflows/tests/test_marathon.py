"""A short marathon on both databases: the long one is `benchmarks/marathon.py`."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SEED = 7
RUNS = 200
CLIENTS = 20


@pytest.fixture
def marathon(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import marathon

    yield marathon
    for name in ("marathon", "marathon_checks", "marathon_flows", "marathon_worker"):
        sys.modules.pop(name, None)


async def play(marathon, url, folder, faults, *, workers, server=None):
    played = marathon.Marathon(url, folder, RUNS, workers, server, random.Random(SEED), CLIENTS)
    found = await marathon.run(played, mean_seconds=1e9, timeout=150, faults=faults, idle_seconds=0.0)
    assert found["wrong"] == {}
    assert found["faults"] == dict(Counter(faults))  # and nobody ended by itself, or did not drain


@pytest.mark.timeout(200)
async def test_runs_survive_kills_on_sqlite(marathon, tmp_path):
    await play(marathon, f"sqlite:///{tmp_path}/marathon.db", tmp_path, ["worker killed"] * 3, workers=1)


@pytest.mark.postgresql
@pytest.mark.timeout(200)
async def test_runs_survive_kills_of_workers_and_of_the_server_on_postgresql(marathon, tmp_path, killable_postgresql):
    faults = ["worker killed", "server killed", "worker stopped", "worker killed"]
    url = f"{killable_postgresql.url}&schema=marathon"
    await play(marathon, url, tmp_path, faults, workers=2, server=killable_postgresql)
