"""The uv workspace that a new service becomes a member of: what is there already, and how it is locked anew."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cli_proj.failure import CommandFailed, conflict, usage
from cli_proj.new.names import Name

NEEDED = ("lib-auth", "lib-events")  # what a service signs people in with
FIRST_PORT = 8010
LAST_PORT = 65535
LOCAL_PORT = re.compile(r"http://(?:127\.0\.0\.1|localhost):(\d+)")


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A workspace by its root: the patterns of its members, the manifests they have, the packages it locks."""

    root: Path
    takes_in: tuple[str, ...]
    leaves_out: tuple[str, ...]
    manifests: Mapping[str, str]  # the text of each member's, by the member's name
    packages: frozenset[str]

    def place_of(self, name: Name, into: str) -> Path:
        """Where the member `name` goes in the folder `into`; raises a usage error where it would be no member."""
        folder = (self.root / into).resolve()
        if not folder.is_dir() or not folder.is_relative_to(self.root):
            raise usage(f"--into must be a folder of the workspace {self.root}, got {into}; make it first")
        place = PurePosixPath(folder.relative_to(self.root).as_posix()) / name.text
        if not _any(place, self.takes_in) or _any(place, self.leaves_out):
            raise usage(
                f"--into must be where the workspace looks for members ({', '.join(self.takes_in)}), got {into}",
                hint="choose another, or add it to [tool.uv.workspace] members",
            )
        return folder / name.text

    def refuse_taken(self, name: Name) -> None:
        """Refuse a name that a member or a locked package has."""
        if name.text in self.manifests or name.text in self.packages:
            what = "a member" if name.text in self.manifests else "a package in uv.lock"
            raise conflict(f"a name must be free, got {name.text!r}: it is {what}", hint=f"my-{name.text}")

    def refuse_without_sign_in(self) -> None:
        """Refuse a workspace that has not what a service signs people in with."""
        missing = [name for name in NEEDED if name not in self.manifests]
        if missing:
            raise usage(
                f"the workspace must have the members {' and '.join(NEEDED)}, got {self.root} without "
                f"{' and '.join(missing)}; a service checks tokens with them",
                hint="evs new service in the workspace of evs, or take these members in first",
            )

    def free_port(self) -> int:
        """The first port from 8010 on that no member says it answers at."""
        used = {int(port) for text in self.manifests.values() for port in LOCAL_PORT.findall(text)}
        return next(port for port in range(FIRST_PORT, LAST_PORT) if port not in used)

    def lock(self) -> None:
        """Write `uv.lock` anew; raises `CommandFailed` with uv's own words."""
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv is None:
            raise CommandFailed("uv must be there to lock the workspace, and it is not on PATH", hint="uv lock")
        done = subprocess.run(  # noqa: S603 - the user's own uv
            [uv, "lock", "--quiet"], cwd=self.root, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CommandFailed(
                f"uv lock must succeed, got: {done.stderr.strip() or done.returncode}",
                hint=f"cd {self.root} && uv lock",
            )


def find_workspace(start: Path) -> Workspace:
    """The workspace around `start`; raises a usage error where there is none."""
    for folder in (start, *start.parents):
        table = _manifest(folder).get("tool", {}).get("uv", {}).get("workspace")
        if isinstance(table, dict):
            return _workspace(folder, table)
    raise usage(
        f"a service must be made inside a uv workspace, got {start}, where no folder above has a pyproject.toml with "
        "[tool.uv.workspace]",
        hint="cd into the workspace",
    )


def _workspace(root: Path, table: Mapping[str, Any]) -> Workspace:
    takes_in, leaves_out = tuple(table.get("members", ())), tuple(table.get("exclude", ()))
    places = {path for pattern in takes_in for path in root.glob(f"{pattern}/pyproject.toml")}
    kept = [path for path in places if not _any(PurePosixPath(path.parent.relative_to(root)), leaves_out)]
    lock = _toml(root / "uv.lock")
    return Workspace(
        root=root,
        takes_in=takes_in,
        leaves_out=leaves_out,
        manifests={_manifest(path.parent).get("project", {}).get("name", ""): path.read_text() for path in kept},
        packages=frozenset(package["name"] for package in lock.get("package", ())),
    )


def _any(path: PurePosixPath, patterns: tuple[str, ...]) -> bool:
    return any(path.full_match(pattern) for pattern in patterns)


def _manifest(folder: Path) -> Mapping[str, Any]:
    return _toml(folder / "pyproject.toml")


def _toml(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise usage(f"{path} must be readable as TOML, got: {error}; correct it") from error
