"""The folder that an image is built from: locked packages and members, installed for its platform, and what starts it.

Everything in it is the same for the same key, whoever makes it and whenever: no time, no path of the machine.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lib_pipeline.errors import PipelineError
from lib_pipeline.image import CONTAINERFILE, Image
from lib_pipeline.workspace import Member

LOCKED, MEMBERS = "locked", "members"
ORIGINS = ("direct_url.json", "uv_cache.json")  # where an installed wheel lay, and since when
EPOCH = 0  # of every file: times are no part of what an image is
START = '''#!/usr/bin/env python3
"""Starts what this image was made for."""

import os
import sys

for name, value in {environment!r}.items():
    os.environ.setdefault(name, value)

from {module} import {function}

sys.exit({function}())
'''
HEALTHY = '''#!/usr/bin/env python3
"""Asks the program whether it is well."""

import sys
import urllib.request

url = {health}
try:
    sys.exit(0 if url is None or urllib.request.urlopen(url, timeout=4).status == 200 else 1)
except OSError as error:
    sys.exit(f"{{url}}: {{error}}")
'''


class ContextFailed(PipelineError):
    """uv could not put together what an image is made of; its own words are in the message."""


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """What contexts are made with: uv, an interpreter of the image's version, a platform as uv names it."""

    root: Path
    uv: Path
    python: Path
    version: str
    platform: str
    variables: Mapping[str, str]

    def build_wheels(self, members: Iterable[Member], folder: Path) -> dict[str, Path]:
        """The wheel of each member, by its name; raises `ContextFailed`."""
        with ThreadPoolExecutor() as side_by_side:
            built = side_by_side.map(
                lambda member: (member.name, self._build_wheel(member, folder / member.name)), members
            )
            return dict(built)

    def _build_wheel(self, member: Member, folder: Path) -> Path:
        self._uv("build", "--quiet", "--wheel", "--package", member.name, "--out-dir", str(folder))
        return next(folder.glob("*.whl"))

    def assemble(self, image: Image, wheels: Mapping[str, Path], folder: Path) -> None:
        """Fill `folder`; raises `ContextFailed`."""
        (folder / CONTAINERFILE).write_text(image.containerfile, encoding="utf-8")
        self._install_locked(image, folder)
        self._install(folder / MEMBERS, "--no-index", *(str(wheels[member.name]) for member in image.holds))
        for part in (LOCKED, MEMBERS):
            _forget_machine(folder / part)
            self._compile(folder, part)
        self._describe(image, folder)
        _write_programs(image, folder)
        (folder / "data").mkdir()
        _forget_times(folder)

    def _install_locked(self, image: Image, folder: Path) -> None:
        requirements = folder / "requirements.txt"
        self._uv("export", *_OF, image.name, "--no-emit-workspace", "--no-annotate", "-o", str(requirements))
        self._install(folder / LOCKED, "--require-hashes", "-r", str(requirements))
        requirements.unlink()

    def _install(self, target: Path, *what: str) -> None:
        target.mkdir()
        options = ("--python-platform", self.platform, "--python-version", self.version, "--link-mode", "copy")
        self._uv("pip", "install", "--quiet", "--no-deps", *options, "--target", str(target), *what)

    def _compile(self, folder: Path, part: str) -> None:
        """Beforehand, for nobody may write there later; by content, for the files' times say nothing."""
        options = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash")
        self._do(
            str(self.python), "-I", "-m", "compileall", *options, "-s", str(folder), "-p", "/app", str(folder / part)
        )

    def _describe(self, image: Image, folder: Path) -> None:
        """What is in the image, as CycloneDX has it."""
        bill = json.loads(self._uv("export", *_OF, image.name, "--format", "cyclonedx1.5"))
        bill.pop("serialNumber", None)
        bill["metadata"].pop("timestamp", None)
        (folder / "sbom.cdx.json").write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def _uv(self, *arguments: str) -> str:
        return self._do(str(self.uv), *arguments)

    def _do(self, *command: str) -> str:
        environment = dict(self.variables) | {"UV_PYTHON": str(self.python), "SOURCE_DATE_EPOCH": "315532800"}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise ContextFailed(f"{' '.join(command[:3])} must succeed, got: {said[-2_000:] or done.returncode}")
        return done.stdout


_OF = ("--quiet", "--frozen", "--no-dev", "--no-header", "--package")


def _write_programs(image: Image, folder: Path) -> None:
    programs = folder / "bin"
    programs.mkdir()
    settings = image.settings
    start = START.format(environment=dict(settings.environment), module=image.module, function=image.function)
    for name, text in (("start", start), ("healthy", HEALTHY.format(health=_literal(settings.health)))):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)


def _literal(text: str | None) -> str:
    return "None" if text is None else json.dumps(text)


def _forget_machine(installed: Path) -> None:
    """Scripts start the image's own interpreter, and no record tells of ours."""
    for script in installed.glob("bin/*"):
        first, found, rest = script.read_bytes().partition(b"\n")
        if found and first.startswith(b"#!") and b"python" in first:
            script.write_bytes(b"#!/usr/bin/env python3\n" + rest)
    for record in installed.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines()
        kept = [_unmeasured(line) for line in lines if not any(f"/{name}," in line for name in ORIGINS)]
        record.write_text("".join(f"{line}\n" for line in sorted(kept)), encoding="utf-8")
    for name in ORIGINS:
        for origin in installed.glob(f"*.dist-info/{name}"):
            origin.unlink()
    (installed / ".lock").unlink(missing_ok=True)


def _unmeasured(line: str) -> str:
    """A line of a RECORD; of a script without the digest, for its first line is another now."""
    path, _, _ = line.partition(",")
    return f"{path},," if path.startswith(("../../bin/", "bin/")) else line


def _forget_times(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
