"""What the image of a member is made of, and the key of it: a digest of everything that is in it."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from lib_pipeline.errors import PipelineError, UnknownMembers
from lib_pipeline.inventory import digest_of
from lib_pipeline.lock import entry_text, path_of
from lib_pipeline.workspace import Member, Workspace, normalized

KEY_FORMAT = 2
CONTAINERFILE = "Containerfile"
BASE = "docker.io/library/python:3.13-slim"
ENTRY = re.compile(r"([\w.]+):([\w.]+)")
KNOWN = frozenset(("environment", "health"))


class ImageUnclear(PipelineError):
    """A member's `[tool.pipeline]` says what no image can be made of."""


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """The optional table `[tool.pipeline.image]` of a member.

    `environment`: variables that are set where whoever runs the image does not. `health`: a URL that answers with 200
    while the program is well.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    health: str | None = None


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image to be: its member, the members whose wheels are in it, what is locked for it, and what it starts."""

    member: Member
    holds: tuple[Member, ...]
    locked: tuple[str, ...]
    module: str
    function: str
    settings: ImageSettings
    containerfile: str

    @property
    def name(self) -> str:
        """As a registry would name it, without one."""
        return self.member.name

    def key(self, wheels: Mapping[str, Path], *, base: str, platform: str, tested: bool) -> str:
        """The digest: of the wheels themselves, so that a test or a comment in a manifest makes no image anew."""
        content = {
            "format": KEY_FORMAT,
            "tested": tested,
            "starts": [self.module, self.function],
            "settings": [sorted(self.settings.environment.items()), self.settings.health],
            "members": [[member.name, digest_of(wheels[member.name])] for member in self.holds],
            "locked": self.locked,
            "containerfile": self.containerfile,
            "base": base,
            "platform": platform,
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def images(workspace: Workspace, names: Collection[str], *, required: bool = True) -> list[Image]:
    """The images of the named members, or of every member that has a program; raises `PipelineError`.

    Where they are not `required`, a named member without a program is left out.
    """
    wanted = {normalized(name) for name in names}
    if unknown := wanted - workspace.members.keys():
        raise UnknownMembers(sorted(unknown), workspace.members)
    containerfile = read_containerfile(workspace.root)
    return [
        _image(workspace, member, containerfile)
        for member in workspace.members.values()
        if (not wanted or member.name in wanted) and ((wanted and required) or _is_meant(member))
    ]


def read_containerfile(root: Path) -> str:
    """The workspace's own `Containerfile` where it has one, else ours."""
    own = root / CONTAINERFILE
    return own.read_text(encoding="utf-8") if own.is_file() else (files("lib_pipeline") / CONTAINERFILE).read_text()


def _is_meant(member: Member) -> bool:
    return bool(_scripts(member)) and _table(member) is not False


def _image(workspace: Workspace, member: Member, containerfile: str) -> Image:
    module, function = _entry(member)
    return Image(
        member=member,
        holds=_holds(workspace, member),
        locked=tuple(sorted(_locked(workspace, member))),
        module=module,
        function=function,
        settings=_settings(member),
        containerfile=containerfile,
    )


def _scripts(member: Member) -> Mapping[str, str]:
    found: Mapping[str, str] = member.manifest.get("project", {}).get("scripts", {})
    return found


def _entry(member: Member) -> tuple[str, str]:
    """The script of the member's own name, else its only one, else its first."""
    scripts = _scripts(member)
    if not scripts:
        raise ImageUnclear(f"{member.name} must have a program to be an image, got no [project.scripts]; add one")
    entry = scripts.get(member.name) or next(iter(scripts.values()))
    found = ENTRY.fullmatch(entry.replace(" ", ""))
    if found is None:
        raise ImageUnclear(f"A script of {member.name} must look like module:function, got {entry!r}; correct it")
    return found[1], found[2]


def _holds(workspace: Workspace, member: Member) -> tuple[Member, ...]:
    needed = workspace.members_of(workspace.lock.closure(_needs(workspace, member))) - {member.name}
    return (member, *(workspace.members[name] for name in sorted(needed)))


def _needs(workspace: Workspace, member: Member) -> tuple[Mapping[str, Any], ...]:
    package = workspace.package(member) or {}
    return tuple(package.get("dependencies", ()))


def _locked(workspace: Workspace, member: Member) -> Iterator[str]:
    packages = workspace.lock.closure(_needs(workspace, member))
    return (entry_text(package) for package in packages if path_of(package) is None)


def _table(member: Member) -> Any:
    return member.tool.get("pipeline", {}).get("image", {})


def _settings(member: Member) -> ImageSettings:
    table = _table(member) or {}
    environment, health = table.get("environment", {}), table.get("health")
    if (
        table.keys() - KNOWN
        or not all(isinstance(value, str) for value in environment.values())
        or not isinstance(health, str | None)
    ):
        raise ImageUnclear(
            f'[tool.pipeline.image] of {member.name} must hold environment = {{ NAME = "text" }} and health = "URL", '
            f"got {dict(table)!r}; correct it"
        )
    return ImageSettings(environment=environment, health=health)
