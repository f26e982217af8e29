"""Forks are processes like those that are started: files, environment, folder, exit code and signals are their own."""

import json
import signal
import tempfile

import pytest

from lib_events.testing import wait_until
from lib_events.testing.forks import Forks

FORKS = Forks("timeit:main")  # runs the statement that it is given
ONCE = ("-n1", "-r1")
TELL = "import json, os, sys; told = [sys.stdin.read(), os.getcwd(), dict(os.environ), os.getpid()]"
AND_END = "print(json.dumps(told), flush=True); os._exit(3)"


def test_a_fork_has_its_own_files_folder_environment_and_exit_code(tmp_path):
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
        given.write(b"hello")
        given.seek(0)
        fork = FORKS.start(*ONCE, TELL, AND_END, env={"NAME": "its own"}, cwd=tmp_path, stdin=given, stdout=out)
        assert fork.wait(30) == 3
        out.seek(0)
        heard, folder, environment, pid = json.loads(out.readline())
    assert (heard, folder, pid) == ("hello", str(tmp_path), fork.pid)
    assert environment == {"NAME": "its own"}


async def test_several_run_at_once_and_each_is_ended_by_itself():
    first, second = (FORKS.start(*ONCE, "import time; time.sleep(60)", env={}) for _ in range(2))
    assert (first.poll(), second.poll()) == (None, None)
    with pytest.raises(TimeoutError):
        first.wait(0.01)
    first.kill()
    assert first.wait(30) == -signal.SIGKILL
    assert second.poll() is None
    second.terminate()
    await wait_until(lambda: second.poll() is not None)
    assert second.returncode == -signal.SIGTERM
    second.terminate()  # one that has ended needs none
