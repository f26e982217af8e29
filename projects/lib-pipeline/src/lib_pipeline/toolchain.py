"""What runs the tasks: the interpreter, uv, the system, this pipeline itself. A change of any makes all keys new."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lib_pipeline.errors import PipelineError

DESCRIBE = (
    "import json,platform,sys,sysconfig;"
    "print(json.dumps([sys.version,sys.implementation.name,sysconfig.get_platform(),sys.abiflags,platform.python_build()]))"
)


class ToolMissing(PipelineError):
    """uv, or an interpreter that the workspace accepts, is not there."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Paths to run things with, and what identifies them whatever their path."""

    uv: Path
    python: Path
    identity: Mapping[str, str]


def find_uv() -> str:
    """The uv that started us, else the one on PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    if not found:
        raise ToolMissing("The pipeline must find uv, got none on PATH; install uv")
    return found


def find_toolchain(root: Path) -> Toolchain:
    """uv, and the interpreter it chooses for the workspace."""
    uv = find_uv()
    with ThreadPoolExecutor(1) as pool:
        version = pool.submit(_said, [uv, "--version"], "a uv that runs")
        python = _said([uv, "python", "find", "--system", "--directory", str(root)], "an interpreter")
        identity = {
            "python": _said([python, "-I", "-S", "-c", DESCRIBE], "an interpreter that runs"),
            "uv": version.result(),
            "system": f"{platform.system()} {platform.machine()} {_release()}",
            "pipeline": _own_digest(),
        }
    return Toolchain(uv=Path(uv), python=Path(python), identity=identity)


def _said(command: list[str], what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolMissing(f"The pipeline must find {what}, got: {done.stderr.strip()}; install what is missing")
    return done.stdout.strip()


def _release() -> str:
    """The distribution and its version: system libraries come and go with it."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.release()
    return f"{release.get('ID', '')} {release.get('VERSION_ID', '')}"


def _own_digest() -> str:
    """Another pipeline may run other commands under the same names."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(json.dumps([source.read_text(encoding="utf-8") for source in sources]).encode()).hexdigest()
