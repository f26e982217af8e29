"""What can be done for a member, and with which commands. Which tools a workspace uses is read from its manifests."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from lib_pipeline.inventory import Inventory
from lib_pipeline.workspace import Member, Workspace, required_name

OUT = "{out}"  # the folder a task's products go to
CACHE = "{cache}"  # a folder that tools may keep things in between tasks
TYPE_CHECKERS = ("mypy", "pyright", "basedpyright", "ty")
NO_TESTS_COLLECTED = 5  # pytest's exit code


class Target(StrEnum):
    """What the pipeline can be asked for, in the order in which it is done."""

    LINT = "lint"
    TYPES = "types"
    TEST = "test"
    DOCS = "docs"
    BUILD = "build"
    IMAGE = "image"


TASKS = tuple(target for target in Target if target is not Target.IMAGE)  # what is done by commands of the workspace


class Room(StrEnum):
    """Where a command runs: with everything the workspace locks, or with nothing but what its member declares."""

    WORKSPACE = "workspace"
    MEMBER = "member"
    NONE = "none"


class Reach(StrEnum):
    """Which files a task may read. Its key covers them all."""

    OWN = "own"  # the member's and the root's own configuration
    NEEDED = "needed"  # the member's, those of members it needs, and what belongs to no member
    WHOLE = "whole"  # the workspace


@dataclass(frozen=True, kw_only=True)
class Command:
    """One program with its arguments, run in the workspace's root."""

    arguments: tuple[str, ...]
    room: Room


@dataclass(frozen=True, kw_only=True)
class Work:
    """The commands of one target of one member, or the reason why there are none."""

    commands: tuple[Command, ...] = ()
    reach: Reach = Reach.OWN
    products: str | None = None
    keeps: bool = True
    nothing: str = ""


def work(workspace: Workspace, inventory: Inventory, member: Member, target: Target) -> Work:
    """What has to be done for a target of a member."""
    return WORK[target](workspace, inventory, member)


def _lint(workspace: Workspace, inventory: Inventory, member: Member) -> Work:
    commands: list[Command] = []
    paths = _python_places(workspace, inventory, member)
    if paths and "ruff" in _declared(workspace, member):
        commands.append(
            _command("ruff", "check", "--force-exclude", "--quiet", "--no-cache", "--output-format", "concise", *paths)
        )
        if "black" not in _declared(workspace, member):
            commands.append(_command("ruff", "format", "--check", "--force-exclude", "--quiet", "--no-cache", *paths))
    if member.is_root and _has_import_contracts(member, inventory):
        commands.append(_command("lint-imports", "--no-cache"))
        return Work(commands=tuple(commands), reach=Reach.WHOLE)
    return Work(commands=tuple(commands), nothing="no ruff among its tools" if paths else "no Python files")


def _types(workspace: Workspace, inventory: Inventory, member: Member) -> Work:
    checker = _type_checker(workspace, member)
    if checker is None:
        return Work(nothing="no type checker among its tools")
    sources = _sources(inventory, member)
    if not sources:
        return Work(nothing="no sources")
    invocations = {"mypy": ("mypy", "--cache-dir", f"{CACHE}/mypy", "--no-error-summary"), "ty": ("ty", "check")}
    return Work(commands=(_command(*invocations.get(checker, (checker,)), *sources),), reach=Reach.NEEDED)


def _test(workspace: Workspace, inventory: Inventory, member: Member) -> Work:
    if "pytest" not in _declared(workspace, member):
        return Work(nothing="no pytest among its tools")
    places = _test_places(workspace, inventory, member)
    if not places:
        return Work(nothing="no tests")
    if member.is_root:
        return Work(commands=(_pytest(Room.WORKSPACE, places),), reach=Reach.WHOLE)
    return Work(commands=(_pytest(Room.MEMBER, places),), reach=Reach.NEEDED)


def _docs(workspace: Workspace, inventory: Inventory, member: Member) -> Work:
    configuration = (member.path / "mkdocs.yml").as_posix()
    if configuration not in inventory.digests or "mkdocs" not in _declared(workspace, member):
        return Work(nothing="no mkdocs.yml")
    # Not --quiet: mkdocs counts no warning that it does not print, and --strict lives by that count.
    build = _command("mkdocs", "build", "--strict", "--config-file", configuration, "--site-dir", f"{OUT}/site")
    return Work(commands=(build,), reach=Reach.WHOLE, products=(member.path / "site").as_posix())


def _build(_: Workspace, __: Inventory, member: Member) -> Work:
    if member.tool.get("uv", {}).get("package") is False or "project" not in member.manifest:
        return Work(nothing="no package")
    if "build-system" not in member.manifest and not member.tool.get("uv", {}).get("package"):
        return Work(nothing="no package")
    backend = member.manifest.get("build-system", {}).get("requires", [])
    wheel = Command(
        arguments=("uv", "build", "--quiet", "--wheel", "--package", member.name, "--out-dir", f"{OUT}/dist"),
        room=Room.NONE,
    )
    locked = len(backend) == 1 and required_name(backend[0]) == "uv-build"
    return Work(commands=(wheel,), products="dist", keeps=locked)


WORK: Mapping[Target, Callable[[Workspace, Inventory, Member], Work]] = {
    Target.LINT: _lint,
    Target.TYPES: _types,
    Target.TEST: _test,
    Target.DOCS: _docs,
    Target.BUILD: _build,
}


def _command(*arguments: str) -> Command:
    return Command(arguments=arguments, room=Room.WORKSPACE)


def _pytest(room: Room, places: list[str]) -> Command:
    return Command(arguments=("pytest", "-q", "--no-header", "-o", f"cache_dir={CACHE}/pytest", *places), room=room)


def _declared(workspace: Workspace, member: Member) -> frozenset[str]:
    """The names of the packages that the root's default groups or the member ask for."""
    asked = (*workspace.development, *member.runs_with, *member.developed_with, *workspace.top.runs_with)
    return frozenset(dependency["name"] for dependency in asked)


def _type_checker(workspace: Workspace, member: Member) -> str | None:
    """The one that is configured, else the first that is declared."""
    declared = [name for name in TYPE_CHECKERS if name in _declared(workspace, member)]
    configured = [name for name in declared if name in member.tool or name in workspace.top.tool]
    return next(iter((*configured, *declared)), None)


def _has_import_contracts(member: Member, inventory: Inventory) -> bool:
    return "importlinter" in member.tool or ".importlinter" in inventory.digests


def _own(workspace: Workspace, inventory: Inventory, member: Member) -> Iterator[str]:
    """The files of a member and of no other."""
    others = [other.path for other in workspace.members.values() if other.path != member.path]
    inner = [f"{path}/" for path in others if path.is_relative_to(member.path)]
    return (path for path in inventory.below(member.path) if not path.startswith(tuple(inner)))


def own_files(workspace: Workspace, inventory: Inventory, member: Member) -> dict[str, str]:
    """The digests of the files of a member and of no other."""
    return {path: inventory.digests[path] for path in _own(workspace, inventory, member)}


def _python_places(workspace: Workspace, inventory: Inventory, member: Member) -> list[str]:
    """What a linter is to look at: a member's folder, or of the root what belongs to no member."""
    if not member.is_root:
        return (
            [str(member.path)] if any(path.endswith((".py", ".pyi")) for path in inventory.below(member.path)) else []
        )
    outside = [path for path in _own(workspace, inventory, member) if path.endswith((".py", ".pyi", ".ipynb"))]
    return sorted({_place(workspace, path) for path in outside})


def _place(workspace: Workspace, path: str) -> str:
    """The highest folder of a file that has no member in it, else the file."""
    parents = [PurePosixPath(path), *PurePosixPath(path).parents][:-1]
    members = [member.path for member in workspace.members.values() if not member.is_root]
    free = [folder for folder in parents if not any(each.is_relative_to(folder) for each in members)]
    return free[-1].as_posix()


def _sources(inventory: Inventory, member: Member) -> list[str]:
    """`src`, else the package of the member's name, else the whole folder."""
    for folder in (member.path / "src", member.path / member.name.replace("-", "_")):
        if any(path.endswith((".py", ".pyi")) for path in inventory.below(folder)):
            return [folder.as_posix()]
    if member.is_root:
        return []
    return [member.path.as_posix()] if any(path.endswith(".py") for path in inventory.below(member.path)) else []


def _test_places(workspace: Workspace, inventory: Inventory, member: Member) -> list[str]:
    """The highest folders of a member that hold nothing but its own files, and tests."""
    found = [path for path in _own(workspace, inventory, member) if _is_test(PurePosixPath(path).name)]
    if not member.is_root:
        return [member.path.as_posix()] if found else []
    configured = [PurePosixPath(each) for each in _pytest_options(member).get("testpaths", ())]
    kept = [
        path for path in found if not configured or any(PurePosixPath(path).is_relative_to(each) for each in configured)
    ]
    return sorted({_place(workspace, path) for path in kept})


def _pytest_options(member: Member) -> Mapping[str, Any]:
    found: Mapping[str, Any] = member.tool.get("pytest", {}).get("ini_options", {})
    return found


def _is_test(name: str) -> bool:
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))
