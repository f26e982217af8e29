"""Die with the parent: a supervised process ends when its supervisor does, even by kill -9.

Two nets: on Linux the kernel signals the child when its parent dies; everywhere the supervisor holds the
write end of the child's standard input, which closes with the supervisor. A process that nobody
supervises (`EVS_SUPERVISED` unset) does neither, so `auth-svc </dev/null &` lives on.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

VARIABLE = "EVS_SUPERVISED"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def supervised(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for a child that shall die with us; give it a pipe as standard input."""
    return dict(environment) | {VARIABLE: "1"}


def watch_parent(on_gone: Callable[[], object] | None = None) -> bool:
    """Call `on_gone` (default: SIGTERM to ourselves) when the supervisor is gone; returns whether there is one.

    `on_gone` runs in a thread of its own. Call this once, early, from the main thread.
    """
    if os.environ.get(VARIABLE) != "1":
        return False
    _die_with_parent(signal.SIGTERM)
    threading.Thread(target=_wait_for_end, args=(on_gone or _terminate,), name="parent-watch", daemon=True).start()
    return True


def dying_with_us(command: Sequence[str | Path]) -> list[str]:
    """Return `command` so wrapped that its process, not written in Python, is killed when ours ends (Linux)."""
    if _libc is None:
        return [str(part) for part in command]
    return [sys.executable, "-m", "lib_events.parent_watch", str(os.getpid()), *map(str, command)]


def _wait_for_end(on_gone: Callable[[], object]) -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:  # a standard input that cannot be read is gone as well
        pass
    on_gone()


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _die_with_parent(signal_number: int) -> None:
    """Ask the kernel to signal this process when its parent dies; exec keeps the wish; nothing outside Linux."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def _become(parent: int, command: list[str]) -> None:
    _die_with_parent(signal.SIGKILL)
    if os.getppid() == parent:  # else it died before the kernel knew our wish
        os.execv(command[0], command)  # noqa: S606 - the same process, so that the wish holds


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
