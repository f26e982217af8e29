"""The environments that commands run in. A member's room holds what it declares and nothing else, so that a test that
passes there has used nothing its key does not cover. The rooms are the pipeline's own: nobody's `.venv` is touched."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lib_pipeline.targets import CACHE, OUT, Command, Room

WHOLE = frozenset(("home", "version_info", "include-system-site-packages"))


class RoomNotMade(Exception):
    """uv could not make an environment; its own words are in the message."""


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """The environments of one workspace, in a folder of the user's cache. What holds for all tasks of a call is made
    once in it, and noted in the folder of the call."""

    root: Path
    folder: Path
    call: Path
    uv: Path
    python: Path
    groups: tuple[str, ...]
    variables: Mapping[str, str]

    def arguments(self, command: Command, member: str, out: Path) -> list[str]:
        """The command with its places filled in; a member's room is made by the same uv call that runs it."""
        filled = [each.replace(OUT, str(out)).replace(CACHE, str(self.folder / "tools")) for each in command.arguments]
        if command.room is not Room.MEMBER:
            return [str(self.uv), *filled[1:]] if filled[0] == "uv" else filled
        requirements = str(self.folder / "development.txt")
        run = [
            str(self.uv),
            "run",
            "--quiet",
            "--frozen",
            "--exact",
            "--package",
            member,
            "--all-groups",
            "--all-extras",
        ]
        return [*run, "--with-requirements", requirements, "--", *filled]

    def environment(self, command: Command, member: str) -> dict[str, str]:
        """What the command sees of the environment."""
        seen = dict(self.variables) | {"UV_PYTHON": str(self.python)}
        if command.room is Room.WORKSPACE:
            place = self._place("workspace", prefix="")
            return seen | {
                "VIRTUAL_ENV": str(place),
                "PATH": os.pathsep.join((str(place / "bin"), seen.get("PATH", ""))),
            }
        return seen | {"UV_PROJECT_ENVIRONMENT": str(self._place(member))}

    def prepare(self, room: Room, member: str) -> None:
        """Make what a room needs, once; raises `RoomNotMade`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f"{room}.lock"):
            note = self.call / f"{room}.made"
            if not note.exists():
                self._make(room)
                note.touch()
        if room is Room.MEMBER:
            self._furnish(member)

    def _make(self, room: Room) -> None:
        """What all tasks of a call have in common."""
        if room is Room.WORKSPACE:
            place = self._place("workspace", prefix="")
            clear_if_unsound(place)
            self._uv("sync", "--quiet", "--frozen", "--all-packages", at=place)
        if room is Room.MEMBER:
            self._export()

    def _furnish(self, member: str) -> None:
        """Make a new room before its test run has its turn, while another member's is running."""
        place = self._place(member)
        clear_if_unsound(place)
        if not place.exists():
            command = Command(arguments=("python", "-I", "-S", "-c", ""), room=Room.MEMBER)
            self._uv(*self.arguments(command, member, place)[1:], at=place)

    def _export(self) -> None:
        """The requirements of the root's default groups, written whole or not at all."""
        target, partial = self.folder / "development.txt", self.folder / f"development.{os.getpid()}"
        groups = [argument for group in self.groups for argument in ("--only-group", group)]
        if groups:
            self._uv(
                "export", "--quiet", "--frozen", "--no-hashes", "--no-annotate", *groups, "--output-file", str(partial)
            )
        else:
            partial.write_text("")
        partial.replace(target)

    def _uv(self, *arguments: str, at: Path | None = None) -> None:
        environment = dict(self.variables) | {"UV_PYTHON": str(self.python)}
        environment |= {"UV_PROJECT_ENVIRONMENT": str(at)} if at else {}
        done = subprocess.run(
            [str(self.uv), *arguments], cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RoomNotMade(f"uv {arguments[0]} must succeed, got: {done.stderr.strip() or done.returncode}")

    def _place(self, name: str, *, prefix: str = "member-") -> Path:
        return self.folder / f"{prefix}{name}"


def clear_if_unsound(place: Path) -> None:
    """Take away an environment whose making broke off, such as on a full disk.

    Without a whole `pyvenv.cfg` its Python takes itself for the interpreter it was made from, and uv would go on to
    install there, and to remove what is there.
    """
    configuration = place / "pyvenv.cfg"
    written = configuration.read_text(encoding="utf-8") if configuration.is_file() else ""
    keys = {line.split("=")[0].strip() for line in written.splitlines() if "=" in line}
    if place.exists() and not (keys >= WHOLE and written.endswith("\n")):
        shutil.rmtree(place)


def rooms_folder(cache: Path, root: Path) -> Path:
    """The folder of a workspace's rooms; workspaces are told apart by their path."""
    return cache / "rooms" / hashlib.sha256(str(root).encode()).hexdigest()[:16]


def forget_vanished(cache: Path) -> None:
    """Take away the rooms of workspaces that are no more."""
    for note in (cache / "rooms").glob("*/workspace.path"):
        with suppress(OSError):
            if not Path(note.read_text(encoding="utf-8")).is_dir():
                shutil.rmtree(note.parent, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
