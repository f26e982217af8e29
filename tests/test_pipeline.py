"""The pipeline on this very workspace: its cache passes nothing that is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib_events.testing import missing

ROOT = Path(__file__).parents[1]


@pytest.mark.pipeline
@pytest.mark.timeout(600)
def test_a_broken_library_turns_exactly_its_dependents_red_and_mended_it_is_known():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_CACHE_URL")}
    done = subprocess.run(
        [sys.executable, "-m", "lib_pipeline", "self-test"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "must have a cache to test, got none" in done.stderr:
        missing(f"the npm registry, for Turborepo ({done.stderr})")
    assert done.returncode == 0, done.stderr
    assert "self-test: passed" in done.stderr
