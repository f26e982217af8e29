"""One supervised process; the ones here are small programs of this test, started for real."""

import sys

import pytest

from cli_proj.supervise.child import Child, ChildFailed, ServicePlan
from cli_proj.supervise.probe import AliveProbe, FileProbe
from lib_events.testing import wait_until


@pytest.fixture
def start(tmp_path):
    def make(code, probe=None):
        said = []
        command = (sys.executable, "-c", code)
        plan = ServicePlan("clock", command, {}, probe or AliveProbe())
        child = Child(plan, log=tmp_path / "logs" / "clock.log", announce=said.append)
        child.start()
        return child, said

    return make


async def test_a_process_that_ends_is_started_again_and_this_is_said(start):
    child, said = start("input()")
    await child.wait_ready(5)
    before = child.pid
    child._signal(9)
    await wait_until(lambda: child.pid not in (None, before) and child.state == "ready")
    assert child.restarts == 1
    assert "was ended by SIGKILL; starting it again" in said[0]
    await child.stop()
    assert child.pid is None
    assert child.state == "stopped"


async def test_a_process_that_gives_up_later_is_quoted(start, tmp_path):
    known = tmp_path / "known"
    code = f"import pathlib, sys\nseen = pathlib.Path({str(known)!r})\n"
    code += "if seen.exists(): sys.exit('clock: line 3 is no Python')\nseen.touch()\ninput()"
    child, said = start(code)
    await child.wait_ready(5)
    await wait_until(known.exists)
    child._signal(9)
    quoted = await wait_until(lambda: [text for text in said if "exit code 1" in text])
    assert said[0].endswith("clock.log)")  # who was killed had no time to say anything
    assert quoted[0].endswith("clock.log)\n    clock: line 3 is no Python")
    await child.stop()


async def test_a_process_that_ends_before_it_is_ready_fails_the_start_with_its_last_words(start, tmp_path):
    probe = FileProbe(tmp_path / "never")
    child, _ = start("import sys; print('the port is taken', file=sys.stderr); sys.exit(3)", probe)
    with pytest.raises(ChildFailed, match="ended with exit code 3") as raised:
        await child.wait_ready(5)
    assert raised.value.words == ["the port is taken"]
    await child.stop()


async def test_a_process_that_is_never_ready_fails_the_start_in_time(start, tmp_path):
    child, _ = start("input()", FileProbe(tmp_path / "never"))
    with pytest.raises(ChildFailed, match=r"not ready after 0\.2 s"):
        await child.wait_ready(0.2)
    await child.stop()


async def test_a_program_that_does_not_exist_fails_the_start(tmp_path):
    plan = ServicePlan("ghost", ("/no/such/program",), {}, FileProbe(tmp_path / "never"))
    child = Child(plan, log=tmp_path / "ghost.log", announce=print)
    child.start()
    with pytest.raises(ChildFailed, match="cannot be started"):
        await child.wait_ready(5)
    await child.stop()


async def test_stopping_asks_first_and_stopping_twice_is_safe(start, tmp_path):
    ended = tmp_path / "ended"
    code = "import signal, sys, pathlib\n"
    code += f"signal.signal(15, lambda *_: (pathlib.Path({str(ended)!r}).touch(), sys.exit(0)))\n"
    ready = tmp_path / "ready"
    child, said = start(f"{code}pathlib.Path({str(ready)!r}).touch()\nsignal.pause()", FileProbe(ready))
    await child.wait_ready(5)
    await child.stop()
    await child.stop()
    assert ended.exists()
    assert said == []


async def test_other_settings_reach_the_restarted_process(start, tmp_path):
    seen = tmp_path / "seen"
    child, _ = start(
        f"import os,pathlib; pathlib.Path({str(seen)!r}).write_text(os.environ.get('MOOD', 'none')); input()"
    )
    await child.wait_ready(5)
    await wait_until(lambda: seen.exists() and seen.read_text() == "none")
    await child.change(MOOD="good")
    await wait_until(lambda: seen.read_text() == "good")
    await child.stop()
