"""A messenger of Turborepo gets its task performed, and nothing that it was not sent for."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from lib_events.testing import wait_until
from lib_pipeline.errands import Errands
from lib_pipeline.mirror import MESSENGER
from lib_pipeline.performing import Order, read_receipt
from lib_pipeline.processes import CallEnded, Processes
from lib_pipeline.rooms import Rooms
from lib_pipeline.targets import Command, Room, Target

UV = "uv"  # of no use to commands without a room


def order(member, *words, key="k1"):
    command = Command(arguments=words, room=Room.NONE)
    return Order(member=member, target=Target.BUILD, key=key, commands=(command,), files={}, beyond=frozenset())


@pytest.fixture
def errands(tmp_path):
    """Open for two tasks: one that passes, one that fails."""
    variables = {"PATH": os.environ["PATH"]}
    place = {"root": tmp_path, "folder": tmp_path / "rooms", "call": tmp_path}
    rooms = Rooms(**place, uv=UV, python=sys.executable, groups=(), variables=variables)
    orders = {"lib-a#build": order("lib-a", "true"), "lib-b#build": order("lib-b", "false")}
    with Errands(orders, rooms, tmp_path, at_once=1) as opened:
        yield opened


def send(errands, name, key):
    command = [sys.executable, "-I", "-S", "-c", MESSENGER, name, key]
    environment = {"PIPELINE_CALL": errands.address}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_messenger_ends_as_its_task_did_and_says_how(errands, tmp_path):
    passed, failed = send(errands, "lib-a#build", "k1"), send(errands, "lib-b#build", "k1")
    assert (passed.returncode, json.loads(passed.stdout)["outcome"]) == (0, "passed")
    assert (failed.returncode, json.loads(failed.stdout)["note"]) == (1, "false exited with 1")
    receipts = [
        read_receipt(tmp_path / "members" / name / "out" / "build", member=name, target=Target.BUILD, key="k1")
        for name in ("lib-a", "lib-b")
    ]
    assert [receipt is not None for receipt in receipts] == [True, False]


@pytest.mark.parametrize(("name", "key"), [("lib-a#build", "k2"), ("lib-c#build", "k1"), ("", "")])
def test_a_messenger_of_another_call_gets_nothing_done(errands, tmp_path, name, key):
    done = send(errands, name, key)
    assert (done.returncode, done.stdout.strip()) == (2, "")
    assert not (tmp_path / "members").exists()


def test_nobody_else_gets_in_and_nothing_is_left(errands):
    folder = Path(errands.address).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    errands.__exit__(None, None, None)
    assert not folder.exists()
    assert send(errands, "lib-a#build", "k1").returncode == 1


async def test_no_more_run_at_once_than_there_are_places_and_all_of_them_end(tmp_path):
    processes = Processes(1)
    codes = []

    def run(words):
        with (tmp_path / "output").open("ab") as output:
            try:
                codes.append(processes.run(words, at=tmp_path, environment=os.environ, output=output))
            except CallEnded:
                codes.append("not started")

    threads = [
        Thread(target=run, args=(["sh", "-c", f"echo begun > {tmp_path / name}; exec sleep 60"],)) for name in "ab"
    ]
    for thread in threads:
        thread.start()
    await wait_until(lambda: (tmp_path / "a").exists() or (tmp_path / "b").exists())
    processes.end()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(map(str, codes)) == ["-15", "not started"]
    assert len(list(tmp_path.glob("[ab]"))) == 1
    with pytest.raises(CallEnded):
        processes.run(["true"], at=tmp_path, environment=os.environ, output=io.BytesIO())
