"""A person at a command line: `evs` as a process with a home of its own, and a real product to talk to."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli_proj.command_table import COMMANDS
from cli_proj.demo.browser import Browser
from lib_events.testing.forks import Forks

FORKS = Forks("cli_proj.__main__:main", [entry.target.partition(":")[0] for entry in COMMANDS])

BOUND_SECONDS = 100.0  # a machine that does much else is slow, and that is not what is tested
FREE_PORTS = ("--gui-port", "0", "--auth-port", "0", "--app-port", "0")
ADMIN_PASSWORD = "a very long administrator password"


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Runs `evs` in a folder, with a home where nothing is configured."""

    folder: Path
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cli_proj", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EVS_", "SSH_", "XDG_"))}
        home = {"HOME": str(self.home), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring", "NO_COLOR": "1"}
        return inherited | home | self.variables

    def evs(self, *arguments: str, stdin: str = "", **variables: str) -> Answer:
        """Run a command to its end."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            environment = self.environment | variables
            files = {"stdin": given, "stdout": out, "stderr": err}
            fork = FORKS.start(*arguments, cwd=self.folder, env=environment, **files)
            try:
                code = fork.wait(BOUND_SECONDS)
            finally:
                fork.kill()
            out.seek(0)
            err.seek(0)
            answer = Answer(code, out.read().decode(), err.read().decode())
        assert "Traceback" not in answer.err, answer.err
        return answer

    def evs_anew(self, *arguments: str, **variables: str) -> Answer:
        """The same by an interpreter of its own, with nothing imported beforehand."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND_SECONDS,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Keep `evs up` running inside the block."""
        (self.folder / ".evs" / "context.json").unlink(missing_ok=True)
        process = self.start("up", *FREE_PORTS, *options)
        try:
            self.wait_for(lambda: process.poll() is not None or (self.folder / ".evs" / "context.json").exists())
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=BOUND_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise

    def services(self) -> dict[str, dict[str, Any]]:
        """What `evs status` says, by service."""
        return {service["service"]: service for service in self.evs("status", "--json").json["services"]}

    @staticmethod
    def wait_for(condition: Callable[[], object], timeout: float = BOUND_SECONDS) -> None:
        """Wait until `condition` is true; it may start a process, so nobody looks again for as long as a look took."""
        deadline = time.monotonic() + timeout
        while True:
            began = time.monotonic()
            if condition():
                return
            assert began < deadline, f"must come true within {timeout} s: {condition}"
            time.sleep(max(0.05, time.monotonic() - began))

    @staticmethod
    def is_alive(pid: int) -> bool:
        """Whether a process runs; a zombie does not."""
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return False
        return status.rpartition(")")[2].split()[0] != "Z"

    def with_variables(self, **variables: str) -> "Shell":
        return Shell(self.folder, self.home, self.variables | variables)

    def somebody_else(self, name: str) -> "Shell":
        """Another person's home, in the same folder."""
        home = self.home / name
        home.mkdir(exist_ok=True)
        return Shell(self.folder, home, self.variables)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "work"
    folder.mkdir()
    return Shell(folder, home)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A running product, one per test process; its tests change nothing that another one counts on."""
    place = tmp_path_factory.mktemp("product")
    (place / "home").mkdir()
    shell = Shell(place, place / "home", {"EVS_REGISTRATION": "true", "EVS_ADMIN_PASSWORD": ADMIN_PASSWORD})
    with shell.running():
        yield shell


@pytest.fixture(scope="module")
def admin(product: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """An administrator who has signed in for administration, by the code that the terminal shows."""
    shell = Shell(product.folder, tmp_path_factory.mktemp("admin"), product.variables)
    process = shell.start("auth", "login", "--device", "--insecure-storage", "--admin")
    url = next(word for line in process.stderr for word in line.split() if word.startswith("http"))

    async def allow() -> None:
        async with Browser() as browser:
            page = await browser.open(url)
            values = {"username": "admin", "password": ADMIN_PASSWORD}
            page = await browser.submit(page, page.form("/login"), values)
            while "decision" not in dict(page.form("/device").buttons):
                page = await browser.submit(page, page.form("/device"), {})
            await browser.submit(page, page.form("/device"), {"decision": "allow"})

    asyncio.run(allow())
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return shell


@pytest.fixture
def person(product: Shell, tmp_path: Path) -> Shell:
    """Somebody new at the running product: nothing configured, nobody signed in."""
    return Shell(product.folder, tmp_path, product.variables)
