"""Python imports this by itself at start, in a test run and in every Python process that it starts: it notes which
files of the workspace they open. Nothing else may happen here, and nothing may fail: the process is somebody else's.
"""

import os
import sys

_ROOT = os.environ.get("PIPELINE_WITNESS_ROOT", "")
_NOTES = os.environ.get("PIPELINE_WITNESS_NOTES", "")
_HERE = os.path.dirname(os.path.realpath(__file__)) + os.sep
_seen: set = set()  # type: ignore[type-arg]


def _hear(event: str, arguments: tuple) -> None:  # type: ignore[type-arg]
    if event != "open" or isinstance(arguments[0], int):
        return
    try:
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path in _seen or not path.startswith(_ROOT) or path.startswith(_HERE):
            return
        _seen.add(path)
        notes = os.open(_NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(notes, path[len(_ROOT) :].encode() + b"\n")
        os.close(notes)
    except (OSError, TypeError, ValueError):
        pass


if _ROOT and _NOTES:
    _seen.add(os.path.realpath(_NOTES))
    sys.addaudithook(_hear)
