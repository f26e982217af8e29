"""A folder outside the workspace that Turborepo keeps book in: a uv workspace with the same members and no files.

Turborepo's uv mode wants a `turbo.json` and a name in the root's `pyproject.toml`, and writes logs beside the sources.
Here it has all that, and somebody's workspace stays as it is. A task's command carries its key, so what Turborepo
looks up is what we computed, and nothing that it would find out by itself.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib_pipeline.plan import Task
from lib_pipeline.targets import Target

LOCAL_SIZE = "4GB"
LOCAL_AGE = "30d"
REMOTE_SECONDS = 5
TOP = "pipeline-root"
CALL = "PIPELINE_CALL"  # the variable that tells a messenger where the call is that sent for it
MESSENGER = """\
import os, socket, sys
call = socket.socket(socket.AF_UNIX)
call.connect(os.environ["PIPELINE_CALL"])
call.sendall(" ".join(sys.argv[1:]).encode() + b"\\n")
code, _, words = call.makefile(encoding="utf-8").readline().partition(" ")
sys.stdout.write(words)
sys.exit(int(code or 1))
"""


def make_mirror(folder: Path, tasks: Iterable[Task]) -> None:
    """Write the members, the lock, and what Turborepo is to do."""
    chosen = list(tasks)
    members = sorted({task.member for task in chosen})
    (folder / "pyproject.toml").write_text(
        f'[tool.turbo]\nname = "{TOP}"\n\n[tool.uv.workspace]\nmembers = ["members/*"]\n', encoding="utf-8"
    )
    (folder / "uv.lock").write_text(_lock(members), encoding="utf-8")
    for member in members:
        place = folder / "members" / member
        place.mkdir(parents=True)
        (place / "pyproject.toml").write_text(
            f'[project]\nname = "{member}"\nversion = "0"\nrequires-python = ">=3.13"\n', encoding="utf-8"
        )
    (folder / "turbo.json").write_text(json.dumps(_turbo(chosen), indent=1), encoding="utf-8")


def out_folder(mirror: Path, member: str, target: Target) -> Path:
    """Where a task's products and receipt are."""
    return mirror / "members" / member / "out" / target


def log_file(mirror: Path, member: str, target: Target) -> Path:
    """Where a task's output is."""
    return mirror / "logs" / f"{member}.{target}.log"


def _lock(members: Iterable[str]) -> str:
    names = list(members)
    packages = (
        f'\n[[package]]\nname = "{name}"\nversion = "0"\nsource = {{ virtual = "members/{name}" }}\n' for name in names
    )
    head = f'version = 1\nrevision = 3\nrequires-python = ">=3.13"\n\n[manifest]\nmembers = {json.dumps(names)}\n'
    return head + "".join(packages)


def _turbo(tasks: Iterable[Task]) -> dict[str, Any]:
    return {
        "futureFlags": {
            "experimentalPythonWorkspaces": True,
            "experimentalTaskCommand": True,
            "longerSignatureKey": True,
        },
        "noUpdateNotifier": True,
        "cacheMaxAge": LOCAL_AGE,
        "cacheMaxSize": LOCAL_SIZE,
        "remoteCache": {"signature": True, "timeout": REMOTE_SECONDS, "uploadTimeout": REMOTE_SECONDS * 2},
        "globalPassThroughEnv": [CALL],
        "tasks": {task.name: _entry(task) for task in tasks},
    }


def _entry(task: Task) -> dict[str, Any]:
    return {
        # Found on PATH, so that the command is the same wherever the interpreter lies.
        "command": ["python", "-I", "-S", "-c", MESSENGER, task.name, task.key],
        "inputs": ["pyproject.toml"],
        "outputs": [f"out/{task.target}/**"],
        "cache": task.keeps,
    }
