"""For tests that start a program again and again: forks of a process that has imported it already.

A service takes a second to import what it is made of, and a command ten times as long as it runs. A fork is a process
of its own all the same, with its own arguments, environment, folder, files and end, and may be killed like any other.
That a program imports what it needs by itself has to be shown elsewhere, once.
"""

import atexit
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NoReturn

NUMBER_BYTES = 8  # each number that is told
FIRST_FREE = 3  # after standard input, output and error


class Fork:
    """A started program."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self.pid = _number(told.recv(NUMBER_BYTES))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code; raises `TimeoutError`."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            self.returncode = _number(self._told.recv(NUMBER_BYTES))
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        try:
            return self.wait(0)
        except BlockingIOError:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended needs none."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts one program, whose function is named like `auth_svc.__main__:main` or, in a file, `/a/program.py:main`;
    `modules` are imported beforehand.

    What is forked from begins with the first start and ends with this process.
    """

    def __init__(self, program: str, modules: Sequence[str] = ()) -> None:
        self._told = json.dumps([program, *modules])
        self._process: subprocess.Popen[bytes] | None = None
        self._asking: socket.socket | None = None

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
    ) -> Fork:
        """Start the program; what is not given of its files is nothing."""
        asking = self._asking or self._begin()
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ExitStack() as stack:
            stack.callback(theirs.close)
            nothing = stack.enter_context(Path(os.devnull).open("r+b"))
            files = [(file or nothing).fileno() for file in (stdin, stdout, stderr)]
            told = json.dumps([list(arguments), str(cwd or Path.cwd()), dict(env)]).encode()
            socket.send_fds(asking, [_bytes(len(told))], [*files, theirs.fileno()])
            asking.sendall(told)
        return Fork(ours)

    def end(self) -> None:
        """Start no more; what has been started goes on."""
        if self._asking is not None and self._process is not None:
            self._asking.close()
            self._process.wait()
            self._asking = None

    def _begin(self) -> socket.socket:
        self._asking, theirs = socket.socketpair(socket.AF_UNIX)
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), self._told]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603
        atexit.register(self.end)
        return self._asking


def _serve(asked: socket.socket, program: str, *modules: str) -> None:
    """Fork a keeper for each start that is asked for, which forks the program and tells of its end."""
    module, _, function = program.rpartition(":")
    main = getattr(_load(module), function)
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while (found := socket.recv_fds(asked, NUMBER_BYTES, FIRST_FREE + 1))[0]:
        length, files, _, _ = found
        told = asked.recv(_number(length), socket.MSG_WAITALL)
        if os.fork() == 0:
            asked.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            keeper = socket.socket(fileno=files.pop())
            pid = os.fork()
            if pid == 0:
                keeper.close()
                arguments, folder, environment = json.loads(told)
                _become(arguments, folder, environment, files)
                sys.exit(main())
            _keep(pid, keeper)
        for file in files:
            os.close(file)


def _load(module: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(module).stem, module) if module.endswith(".py") else None
    if spec is None or spec.loader is None:
        return importlib.import_module(module)
    loaded = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _keep(pid: int, keeper: socket.socket) -> NoReturn:
    for number in range(FIRST_FREE):
        os.close(number)  # a pipe ends with the program
    keeper.send(_bytes(pid))
    _, status = os.waitpid(pid, 0)
    keeper.send(_bytes(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _bytes(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, signed=True)


def _number(told: bytes) -> int:
    """The number that was told in one piece; raises `ChildProcessError` when nobody is there to tell any more."""
    if not told:
        raise ChildProcessError("whoever starts the program and tells of its end must live, and has ended")
    return int.from_bytes(told, signed=True)


def _become(arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Be the process that was asked for."""
    sys.argv[1:] = arguments
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), *json.loads(sys.argv[2]))
