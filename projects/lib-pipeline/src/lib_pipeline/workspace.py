"""A uv workspace as it is on disk: its root, its members, who needs whom. Read from the workspace's own files alone."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lib_pipeline.errors import LockOutdated, ManifestUnreadable, MembersInACycle, NoWorkspace
from lib_pipeline.lock import Dependency, Lock, Package, path_of, read_lock

MANIFEST = "pyproject.toml"
ROOT = PurePosixPath()


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of a workspace; the root is one, too, whether it has a project or not."""

    name: str
    path: PurePosixPath
    manifest: Mapping[str, Any]
    runs_with: tuple[Dependency, ...]
    developed_with: tuple[Dependency, ...]

    @property
    def is_root(self) -> bool:
        """Whether this is the workspace's root: what is in it belongs to no other member."""
        return self.path == ROOT

    @property
    def tool(self) -> Mapping[str, Any]:
        """The `[tool]` tables of its `pyproject.toml`."""
        found: Mapping[str, Any] = self.manifest.get("tool", {})
        return found


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The members by name, the root last, and the lock file they share."""

    root: Path
    members: Mapping[str, Member]
    lock: Lock

    @property
    def top(self) -> Member:
        """The root."""
        return next(member for member in self.members.values() if member.is_root)

    @property
    def development(self) -> tuple[Dependency, ...]:
        """What the root's default groups bring, for everybody: linters, test runner, documentation."""
        return tuple(dependency for name in self.development_groups for dependency in self.root_groups[name])

    @property
    def development_groups(self) -> tuple[str, ...]:
        """The names of those groups."""
        chosen = self.top.tool.get("uv", {}).get("default-groups", ["dev"])
        return tuple(name for name in self.root_groups if chosen == "all" or name in chosen)

    @property
    def root_groups(self) -> Mapping[str, tuple[Dependency, ...]]:
        """The root's dependency groups as they are locked, whether the root has a project or not."""
        if self.lock.root_groups:
            return self.lock.root_groups
        package = self.package(self.top) or {}
        return {name: tuple(group) for name, group in package.get("dev-dependencies", {}).items()}

    def package(self, member: Member) -> Package | None:
        """The locked entry of a member; a root without a project has none."""
        return next((each for each in self.lock.packages.get(member.name, ()) if path_of(each) is not None), None)

    def needed_by(self, member: Member) -> tuple[Package, ...]:
        """Every locked package that is there when a member's tests run: its own, its groups', the root's groups'."""
        if member.is_root:
            return tuple(package for versions in self.lock.packages.values() for package in versions)
        return self.lock.closure((*member.runs_with, *member.developed_with, *self.development))

    def members_of(self, packages: tuple[Package, ...]) -> frozenset[str]:
        """Which of some packages are members."""
        return frozenset(package["name"] for package in packages if path_of(package) is not None) & self.members.keys()


def find_root(start: Path) -> Path:
    """The folder whose `pyproject.toml` has `[tool.uv.workspace]`, from `start` upwards."""
    for folder in (start, *start.parents):
        manifest = folder / MANIFEST
        if manifest.is_file() and "workspace" in _toml(manifest).get("tool", {}).get("uv", {}):
            return folder
    raise NoWorkspace(start)


def read_workspace(root: Path) -> Workspace:
    """Read `uv.lock` and the manifests; raises `PipelineError` where they are unreadable or make a cycle."""
    path = root / "uv.lock"
    if not path.is_file():
        raise LockOutdated(root, "no uv.lock")
    try:
        lock = read_lock(_toml(path))
        members = {member.name: member for member in _members(root, lock)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestUnreadable(path, repr(error)) from error
    workspace = Workspace(root=root, members=members, lock=lock)
    _refuse_cycles(workspace)
    return workspace


def _members(root: Path, lock: Lock) -> Iterator[Member]:
    found = []
    for versions in lock.packages.values():
        for package in versions:
            folder = path_of(package)
            if folder is not None and not folder.startswith("..") and (root / folder / MANIFEST).is_file():
                found.append(_member(root, PurePosixPath(folder), package))
    yield from sorted((member for member in found if not member.is_root), key=lambda member: member.name)
    yield next((member for member in found if member.is_root), None) or _bare_root(root, {each.name for each in found})


def _member(root: Path, folder: PurePosixPath, package: Package) -> Member:
    optional = package.get("optional-dependencies", {}).values()
    groups = package.get("dev-dependencies", {}).values()
    return Member(
        name=package["name"],
        path=folder,
        manifest=_toml(root / folder / MANIFEST),
        runs_with=(*package.get("dependencies", ()), *(each for group in optional for each in group)),
        developed_with=tuple(each for group in groups for each in group),
    )


def _bare_root(root: Path, taken: set[str]) -> Member:
    """A root without a project still has tests and documentation of its own."""
    name = "workspace" if "workspace" not in taken else "workspace-root"
    return Member(name=name, path=ROOT, manifest=_toml(root / MANIFEST), runs_with=(), developed_with=())


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestUnreadable(path, str(error)) from error


def _refuse_cycles(workspace: Workspace) -> None:
    """Members may test one another, but not run on one another in a circle."""
    done: set[str] = set()
    for name in workspace.members:
        _walk(workspace, name, [], done)


def _walk(workspace: Workspace, name: str, path: list[str], done: set[str]) -> None:
    if name in path:
        raise MembersInACycle(path[path.index(name) :])
    if name in done:
        return
    for dependency in workspace.members[name].runs_with:
        if dependency["name"] in workspace.members:
            _walk(workspace, dependency["name"], [*path, name], done)
    done.add(name)


def normalized(name: str) -> str:
    """A name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required_name(requirement: str) -> str:
    """The normalized name of the package that a requirement (PEP 508) asks for."""
    return normalized(re.split(r"[\s\[=<>~!;@(]", requirement.strip(), maxsplit=1)[0])
