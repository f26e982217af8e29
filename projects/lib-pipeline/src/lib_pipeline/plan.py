"""What is to be done, and the key of each task: a digest of everything that its outcome can depend on."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lib_pipeline.errors import UnknownMembers
from lib_pipeline.imports import imported_packages
from lib_pipeline.inventory import Inventory
from lib_pipeline.lock import path_of
from lib_pipeline.settings import Settings, Surroundings
from lib_pipeline.targets import Command, Reach, Target, Work, own_files, work
from lib_pipeline.toolchain import Toolchain
from lib_pipeline.workspace import Member, Workspace, normalized

KEY_FORMAT = 1
PROSE = (".md", ".rst", ".txt")
CONFIGURATION = (".toml", ".cfg", ".ini", ".json", ".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One target of one member: its commands, and the key under which its passing is remembered.

    `files` are the digests of all files it may read: what the key covers. `beyond` are the others, where somebody can
    see whether they are read. `keeps` says whether it may be remembered. `nothing` says why there are no commands.
    """

    member: str
    target: Target
    commands: tuple[Command, ...]
    key: str
    files: Mapping[str, str]
    products: str | None
    keeps: bool
    nothing: str
    beyond: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """As Turborepo names it."""
        return f"{self.member}#{self.target}"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """All that tasks are planned from."""

    workspace: Workspace
    inventory: Inventory
    settings: Settings
    surroundings: Surroundings
    toolchain: Toolchain


def plan(ground: Ground, targets: Iterable[Target], members: Collection[str] = ()) -> list[Task]:
    """The tasks for targets of members, of all unless some are named; raises `UnknownMembers`."""
    wanted = {normalized(name) for name in members}
    if unknown := wanted - ground.workspace.members.keys():
        raise UnknownMembers(sorted(unknown), ground.workspace.members)
    chosen = [member for member in ground.workspace.members.values() if not wanted or member.name in wanted]
    return [_task(ground, member, target) for target in targets for member in chosen]


def _task(ground: Ground, member: Member, target: Target) -> Task:
    found = work(ground.workspace, ground.inventory, member, target)
    files = _files(ground, member, target, found.reach) if found.commands else {}
    return Task(
        member=member.name,
        target=target,
        commands=found.commands,
        key=_key(ground, member, target, found, files),
        files=files,
        products=found.products,
        keeps=found.keeps,
        nothing="" if found.commands else found.nothing,
        beyond=frozenset(ground.inventory.digests.keys() - files.keys()) if target is Target.TEST else frozenset(),
    )


def _key(ground: Ground, member: Member, target: Target, found: Work, files: Mapping[str, str]) -> str:
    content = {
        "format": KEY_FORMAT,
        "task": [member.name, target],
        "commands": [[command.arguments, command.room] for command in found.commands],
        "files": sorted(files.items()),
        "layout": sorted(_layout(ground)) if target is Target.LINT else [],
        "locked": sorted(_locked(ground, member, target, found)),
        "toolchain": sorted(ground.toolchain.identity.items()),
        "environment": sorted(ground.surroundings.keyed.items()),
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _files(ground: Ground, member: Member, target: Target, reach: Reach) -> dict[str, str]:
    """The files within a task's reach, with their digests."""
    if reach is Reach.WHOLE or member.is_root:
        return dict(ground.inventory.digests)
    own = own_files(ground.workspace, ground.inventory, member)
    if reach is Reach.OWN:
        return own | {path: digest for path, digest in _outside(ground).items() if _configures(path)}
    needed = _needed_members(ground, member)
    if target is Target.TYPES:
        needed |= _imported_members(ground, {member.name, *needed})
    for name in needed:
        own |= own_files(ground.workspace, ground.inventory, ground.workspace.members[name])
    return own | {path: digest for path, digest in _outside(ground).items() if not _is_apart(ground, path, target)}


def _is_apart(ground: Ground, path: str, target: Target) -> bool:
    """What is locked is in a test's key entry by entry, so that another entry does not make it new."""
    return path == "uv.lock" or (target is Target.TEST and ground.settings.is_apart(path))


def _outside(ground: Ground) -> dict[str, str]:
    """What belongs to no member but the root."""
    return own_files(ground.workspace, ground.inventory, ground.workspace.top)


def _configures(path: str) -> bool:
    """Tools look for their configuration in the root, which may lead them to more; prose configures none."""
    return path != "uv.lock" and not path.endswith(PROSE) and ("/" not in path or path.endswith(CONFIGURATION))


def _needed_members(ground: Ground, member: Member) -> set[str]:
    workspace = ground.workspace
    needed = workspace.members_of(workspace.needed_by(member)) - {member.name, workspace.top.name}
    return set(needed)


def _imported_members(ground: Ground, start: set[str]) -> set[str]:
    """The members whose packages some members import, declared or not, and those that they import."""
    members = ground.workspace.members
    packages = {name.replace("-", "_"): name for name in members if not members[name].is_root}
    found, waiting = set(start), list(start)
    while waiting:
        own = own_files(ground.workspace, ground.inventory, members[waiting.pop()])
        files = (ground.inventory.root / path for path in own if path.endswith((".py", ".pyi")))
        new = {packages[name] for name in imported_packages(files) & packages.keys()} - found
        found |= new
        waiting += new
    return found - start


def _layout(ground: Ground) -> set[str]:
    """The packages that members have: a linter tells first-party imports by their names, and reads none of them."""
    found = set()
    for member in ground.workspace.members.values():
        depth = len(member.path.parts)
        for path in ground.inventory.below(member.path):
            if path.endswith((".py", ".pyi")):
                found.add("/".join(path.split("/")[:-1][: depth + 2]))
    return found


def _locked(ground: Ground, member: Member, target: Target, found: Work) -> Iterator[str]:
    """The locked entries that a task's environment is made of; members are covered by their files."""
    workspace = ground.workspace
    if target is Target.TEST and not member.is_root:
        packages = workspace.needed_by(member)
    elif target is Target.BUILD:
        packages = ()  # the backend is uv's own, and uv is in the toolchain
    elif target is Target.LINT and not member.is_root:
        packages = workspace.lock.closure({"name": command.arguments[0]} for command in found.commands)
    else:
        packages = tuple(package for versions in workspace.lock.packages.values() for package in versions)
    return (workspace.lock.digest(package) for package in packages if path_of(package) is None)
