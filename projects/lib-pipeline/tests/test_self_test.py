"""The pipeline's test of itself finds what it is there to find; `.ci/run` runs it on the workspace around."""

import subprocess
import sys

import pytest

from lib_pipeline.errors import SelfTestFailed
from lib_pipeline.plan import Task
from lib_pipeline.results import CacheState, Result, Status
from lib_pipeline.running import Ended, survey
from lib_pipeline.self_test import _set_probes, expect
from lib_pipeline.targets import Target

RUN_SECONDS = 110


def ended(**statuses):
    results = []
    for name, status in statuses.items():
        task = Task(
            member=name, target=Target.TEST, commands=(), key="", files={}, products=None, keeps=True, nothing=""
        )
        results.append(Result(task=task, status=status))
    return Ended(results=tuple(results), cache=CacheState(local="on", shared="off"), seconds=0)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ({"a": Status.FAILED, "b": Status.CACHED}, "Exactly a, b must fail, got a;"),
        ({"a": Status.FAILED, "b": Status.RAN}, "Exactly a, b must fail, got a;"),
        ({"a": Status.FAILED, "b": Status.FAILED, "c": Status.FAILED}, "Exactly a, b must fail, got a, b, c;"),
        ({"a": Status.FAILED, "b": Status.FAILED, "c": Status.RAN}, "Exactly c must come from the cache, got nobody;"),
    ],
    ids=["a broken library passed from the cache", "a dependent passed", "somebody else failed", "somebody else ran"],
)
def test_it_tells_a_cache_that_passes_what_is_broken(got, said):
    with pytest.raises(SelfTestFailed, match=said):
        expect(ended(**got), red=frozenset(("a", "b")), known=frozenset(("c",)))


def test_without_a_cache_there_is_nothing_to_test():
    without = Ended(results=(), cache=CacheState(local="off", shared="off", note="no npm"), seconds=0)
    with pytest.raises(SelfTestFailed, match="must have a cache to test, got none: no npm"):
        expect(without, red=frozenset(), known=frozenset())


def test_a_broken_library_turns_exactly_its_dependents_red_and_mended_it_is_known(workspace):
    with workspace.start("self-test") as process:
        _, said = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == 0, said
    assert "lib-core is broken, so app-svc, lib-bus, lib-core must fail, and nobody else" in said
    assert "self-test: passed" in said


def test_probes_are_run_without_the_workspaces_own_plugins_and_workers(workspace, outside):
    manifest = workspace.root / "pyproject.toml"
    manifest.write_text(manifest.read_text().replace("--import-mode=importlib", "--workers-that-do-not-exist"))
    (workspace.root / "conftest.py").write_text("raise RuntimeError('a probe needs none of it')\n")
    probed = dict(_set_probes(survey(workspace.root, {}).workspace, workspace.root))
    assert probed["app-svc"].needs == {"app-svc", "lib-bus", "lib-core"}
    # The words of a test run of the pipeline, in the environment of this very test, which has no such members.
    command = [sys.executable, "-m", "pytest", "-v", "projects/app-svc"]
    done = subprocess.run(command, cwd=workspace.root, env=outside(), capture_output=True, text=True, check=False)
    assert "configfile: pytest.ini" in done.stdout, done.stdout + done.stderr
    assert "plugins: " not in done.stdout
    assert "test_what_is_needed_can_be_imported FAILED" in done.stdout
