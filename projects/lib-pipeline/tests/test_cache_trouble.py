"""Caches that are broken, poisoned, away or slow: what is wrong is never passed, and what can be done is done."""

import itertools
import os
import resource
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib_events.testing.npm import NODE, node_modules
from lib_events.testing.ports import free_ports
from lib_pipeline.shared_cache import SharedCache, trouble_with

FOREIGN = Path(__file__).parent / "foreign"
ALL = {"app-svc", "lib-bus", "lib-core", "lib-lone"}
SOME = {"lib-core", "lib-lone"}
KEY = "a key that only those who may vouch for results know"
TOKEN = "token-of-the-team"
START_SECONDS = 30
TAG_BYTES = 200  # a signature is shorter, a result longer


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running turborepo-remote-cache."""

    url: str
    storage: Path

    def settings(self, **changes: str) -> dict[str, str]:
        return {
            "PIPELINE_CACHE_URL": self.url,
            "PIPELINE_CACHE_TOKEN": TOKEN,
            "PIPELINE_CACHE_SIGNATURE_KEY": KEY,
            **changes,
        }

    def entries(self) -> list[Path]:
        """The results it has, without their signatures."""
        return [path for path in self.storage.rglob("*") if path.is_file() and path.stat().st_size > TAG_BYTES]


@pytest.fixture(scope="session")
def server_program():
    """The real server from npm."""
    return node_modules(FOREIGN) / "turborepo-remote-cache" / "dist" / "cli.js"


@pytest.fixture(scope="module")
def running_server(server_program, tmp_path_factory):
    """A server that the tests of a process have one after the other."""
    port = free_ports(1)[0]
    storage = tmp_path_factory.mktemp("shared") / "storage"
    storage.mkdir()
    environment = os.environ | {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "TURBO_TOKEN": TOKEN,
        "STORAGE_PROVIDER": "local",
        "STORAGE_PATH": str(storage),
        "STORAGE_PATH_USE_TMP_FOLDER": "false",
        "TURBO_REMOTE_CACHE_SIGNATURE_KEY": KEY,
        "LOG_LEVEL": "error",
    }
    process = subprocess.Popen([NODE, server_program], env=environment, cwd=storage.parent)
    try:
        until_it_answers(f"http://127.0.0.1:{port}", process)
        yield Server(url=f"http://127.0.0.1:{port}", storage=storage)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(running_server):
    """A server with an empty store."""
    for path in running_server.storage.rglob("*"):
        if path.is_file():  # it makes a folder once
            path.unlink()
    return running_server


def until_it_answers(url, process):
    asked = SharedCache(url=url, token=TOKEN, signature_key=KEY, team="team", writes=False)
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if not trouble_with(asked):
            return
        time.sleep(0.05)
    pytest.fail("the server of the shared cache must start")


def rotate(paths):
    """Give each file the content of the next."""
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


def archives(workspace):
    return sorted((workspace.cache / "results").glob("*.tar.zst"))


def forget_local(workspace):
    for path in (workspace.cache / "results").iterdir():
        path.unlink()


def test_broken_local_entries_are_not_believed_and_made_again(known_workspace):
    workspace = known_workspace
    for path in archives(workspace):
        path.write_bytes(path.read_bytes()[:-30])
    run = workspace.pipeline("test")
    assert (run.code, run.members("ran")) == (0, ALL), run.err
    assert workspace.pipeline("test").members("cached") == ALL


def test_an_entry_of_other_sources_under_this_key_is_not_believed(workspace):
    workspace.pipeline("test", "lib-lone")
    good = archives(workspace)
    workspace.source("lib-lone").write_text("def value() -> int:\n    return 1 + 0\n")
    workspace.pipeline("test", "lib-lone")
    rotate(archives(workspace))
    run = workspace.pipeline("test", "lib-lone")
    assert len(good) == 1
    assert len(archives(workspace)) == 2
    assert (run.code, run.members("ran")) == (0, {"lib-lone"})
    assert "it is not believed" in run.err


def test_a_fresh_clone_gets_everything_from_the_shared_cache(workspace, server):
    words = ("test", "build", *SOME)
    assert workspace.pipeline(*words, **server.settings(PIPELINE_CACHE_MODE="write")).code == 0
    clone = workspace.clone("fresh", same_cache=False)
    run = clone.pipeline(*words, **server.settings())
    assert run.members("cached") == run.members("cached", "build") == SOME
    assert len(list((clone.root / "dist").glob("*.whl"))) == len(SOME)
    assert run.report["cache"] == {"local": "on", "shared": "read", "note": ""}


def test_who_only_reads_writes_nothing_there(workspace, server):
    run = workspace.pipeline("test", "lib-lone", **server.settings())
    assert run.members("ran") == {"lib-lone"}
    assert server.entries() == []


def test_results_signed_with_another_key_are_not_believed(workspace, server):
    theirs = server.settings(PIPELINE_CACHE_MODE="write", PIPELINE_CACHE_SIGNATURE_KEY="x" * 40)
    workspace.pipeline("test", "lib-lone", **theirs)
    assert server.entries()
    run = workspace.clone("fresh", same_cache=False).pipeline("test", "lib-lone", **server.settings())
    assert (run.code, run.members("ran")) == (0, {"lib-lone"}), run.err


def test_results_that_were_changed_on_the_server_are_not_believed(workspace, server):
    workspace.pipeline("test", *SOME, **server.settings(PIPELINE_CACHE_MODE="write"))
    rotate(server.entries())
    run = workspace.clone("fresh", same_cache=False).pipeline("test", *SOME, **server.settings())
    assert (run.code, run.members("ran")) == (0, SOME), run.err


def test_a_shared_cache_without_signatures_is_refused(workspace):
    run = workspace.pipeline("test", PIPELINE_CACHE_URL="http://127.0.0.1:1", PIPELINE_CACHE_SIGNATURE_KEY="short")
    assert (run.code, "must have at least 32 bytes, got 5" in run.err) == (2, True)


def test_tests_see_nothing_of_the_shared_caches_secrets(workspace, server):
    seen = "[name for name in os.environ if name.startswith(('PIPELINE_CACHE_', 'TURBO_'))]"
    check = f"import os\n\n\ndef test_secrets():\n    assert not {seen}\n"
    workspace.test("lib-lone").write_text(check)
    run = workspace.pipeline("test", "lib-lone", **server.settings(PIPELINE_CACHE_MODE="write"))
    assert run.code == 0, run.err


def test_a_server_that_is_away_or_refuses_us_is_told_and_done_without(workspace, server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        run = workspace.pipeline("test", "lib-lone", **server.settings(PIPELINE_CACHE_URL=away))
    assert (run.code, run.report["cache"]["shared"]) == (0, "unreachable")
    assert "no shared cache: " in run.err
    refused = workspace.pipeline("test", "lib-lone", **server.settings(PIPELINE_CACHE_TOKEN="wrong"))
    assert (refused.code, refused.members("cached")) == (0, {"lib-lone"})
    assert "it refuses the token" in refused.report["cache"]["note"]


@pytest.mark.parametrize("answers", [0, 1], ids=["from the start", "after the first answer"])
def test_a_server_that_does_not_answer_costs_seconds(workspace, server, answers):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer_some, args=(listening, answers), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        began = time.monotonic()
        run = workspace.pipeline(
            "test", "lib-lone", **server.settings(PIPELINE_CACHE_URL=url, PIPELINE_CACHE_MODE="write")
        )
        seconds = time.monotonic() - began
    assert (run.code, run.members("ran")) == (0, {"lib-lone"}), run.err
    assert seconds < 60


def answer_some(listening, answers):
    """Answer that many requests, and leave all others waiting."""
    waiting = []
    for number in itertools.count():
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        waiting.append(connection)
        if number < answers:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            connection.close()


@pytest.mark.parametrize("kilobytes", [0, 1, 16])
def test_a_full_disk_passes_nothing_and_spoils_nothing(bare_workspace, kilobytes):
    workspace = bare_workspace
    workspace.test("lib-lone").write_text("def test_wrong():\n    assert False\n")
    interpreter = installed_in_the_interpreter()

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    full = workspace.pipeline("test", *SOME, preexec_fn=no_room)
    assert full.code in (1, 2), full.err
    assert "Traceback" not in full.err
    run = workspace.pipeline("test", *SOME)
    assert run.members("failed") == {"lib-lone"}, run.err
    assert run.members("ran") | run.members("cached") == SOME - {"lib-lone"}
    assert installed_in_the_interpreter() == interpreter


def installed_in_the_interpreter():
    """What is in the interpreter that environments are made from: a broken environment must not lead uv there."""
    packages = sysconfig.get_path("purelib", vars={"base": sys.base_prefix})
    return {path.name for path in Path(packages).iterdir()}
