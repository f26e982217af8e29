"""Tests the cache on a copy of the very workspace: breaks a shared library and wants exactly its dependents red, then
mends it and wants everything known again. The tests of the copy are probes, which import what their member needs.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pipeline.errors import SelfTestFailed
from lib_pipeline.results import Screen, Status
from lib_pipeline.running import Ended, Request, default_jobs, run, survey
from lib_pipeline.settings import cache_folder
from lib_pipeline.shared_cache import MODE
from lib_pipeline.targets import Target
from lib_pipeline.workspace import Member, Workspace, required_name

BREAKAGE = "\nraise RuntimeError('broken on purpose')\n"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A member that can be imported, by the file that would break it, and the members it needs, itself among them."""

    module: Path
    needs: frozenset[str]


def self_test(root: Path, environment: Mapping[str, str], screen: Screen) -> int:
    """Test the cache on a copy of a workspace; returns 0, or raises `SelfTestFailed` saying what went wrong."""
    ground = survey(root, environment)
    with tempfile.TemporaryDirectory(prefix="pipeline-self-test-") as name:
        folder = Path(name).resolve()
        copy = folder / "copy"
        _copy(ground.inventory.digests, root, copy)
        probed = dict(_set_probes(ground.workspace, copy))
        shared, dependents = _shared(probed)
        request = Request(root=copy, targets=(Target.TEST,), members=tuple(probed), jobs=default_jobs())
        surroundings = _surroundings(environment, folder)

        screen.say(f"self-test: probes of {len(probed)} members")
        expect(run(request, surroundings, screen), red=frozenset(), known=frozenset())
        screen.say("self-test: nothing has changed, so everything must be known")
        expect(run(request, surroundings, screen), red=frozenset(), known=frozenset(probed))
        screen.say(f"self-test: {shared} is broken, so {', '.join(sorted(dependents))} must fail, and nobody else")
        module = probed[shared].module
        whole = module.read_text(encoding="utf-8")
        module.write_text(whole + BREAKAGE, encoding="utf-8")
        expect(run(request, surroundings, screen), red=dependents, known=frozenset(probed) - dependents)
        screen.say(f"self-test: {shared} is mended, so everything must be known")
        module.write_text(whole, encoding="utf-8")
        expect(run(request, surroundings, screen), red=frozenset(), known=frozenset(probed))
    screen.say("self-test: passed")
    return 0


def _copy(names: Iterable[str], root: Path, copy: Path) -> None:
    for name in names:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_file():
            shutil.copy2(root / name, target)


def _surroundings(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """A cache of its own, shared with nobody; only Turborepo itself comes from the user's."""
    cache = folder / "cache"
    cache.mkdir()
    programs = cache_folder(environment) / "turbo"
    programs.mkdir(parents=True, exist_ok=True)
    (cache / "turbo").symlink_to(programs, target_is_directory=True)
    return dict(environment) | {"PIPELINE_CACHE_DIR": str(cache), MODE: "off"}


def _set_probes(workspace: Workspace, copy: Path) -> Iterator[tuple[str, Probed]]:
    """Replace everybody's tests by one that imports the member and all members it needs."""
    needs = {name: frozenset(_needs(workspace, name)) for name in workspace.members}
    modules = {member.name: module for member in workspace.members.values() if (module := _module(copy, member))}
    for member in workspace.members.values():
        _remove_tests(copy / member.path)
    for name, module in modules.items():
        folder = copy / workspace.members[name].path
        (folder / "tests").mkdir(exist_ok=True)
        imports = "".join(f"    import {modules[each].parent.name}\n" for each in sorted(needs[name] & modules.keys()))
        (folder / "tests" / "test_probe.py").write_text(
            f"def test_what_is_needed_can_be_imported():\n{imports}", encoding="utf-8"
        )
        # Where a test run of the member looks first: a probe needs neither the root's plugins nor its workers.
        (folder / "pytest.ini").write_text(f"[pytest]\n{_quick(workspace)}\n", encoding="utf-8")
        yield name, Probed(module=module, needs=needs[name])


def _quick(workspace: Workspace) -> str:
    """What keeps pytest from loading every plugin there is; it can since 8.4."""
    versions = [package.get("version", "") for package in workspace.lock.packages.get("pytest", ())]
    recent = versions and all(
        version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 9 for version in versions
    )
    return "addopts = --disable-plugin-autoload" if recent else ""


def _needs(workspace: Workspace, name: str) -> Iterator[str]:
    """The member and the members its manifests lead to: read from the manifests, as a check on what the lock says."""
    seen: set[str] = set()
    waiting = [(name, True)]
    while waiting:
        current, outermost = waiting.pop()
        if current in seen or current not in workspace.members:
            continue
        seen.add(current)
        yield current
        manifest = workspace.members[current].manifest
        waiting += [(each, False) for each in _asked(manifest, with_groups=outermost)]


def _asked(manifest: Mapping[str, Any], *, with_groups: bool) -> Iterator[str]:
    project = manifest.get("project", {})
    asked = list(project.get("dependencies", ()))
    if with_groups:
        groups = (*manifest.get("dependency-groups", {}).values(), *project.get("optional-dependencies", {}).values())
        asked += [each for group in groups for each in group if isinstance(each, str)]
    return (required_name(each) for each in asked)


def _module(copy: Path, member: Member) -> Path | None:
    """The `__init__.py` of the package a member brings."""
    name = member.name.replace("-", "_")
    places = (copy / member.path / "src" / name, copy / member.path / name)
    return next((place / "__init__.py" for place in places if (place / "__init__.py").is_file()), None)


def _remove_tests(folder: Path) -> None:
    settings = (folder / name for name in ("pytest.toml", ".pytest.toml"))  # they come before a pytest.ini
    for path in [*folder.rglob("test_*.py"), *folder.rglob("*_test.py"), *folder.rglob("conftest.py"), *settings]:
        path.unlink(missing_ok=True)


def _shared(probed: Mapping[str, Probed]) -> tuple[str, frozenset[str]]:
    """The member that most need, and who they are; one that somebody does not need, if there is one."""
    dependents = {name: _dependents(probed, name) for name in probed}
    if not dependents:
        raise SelfTestFailed(
            "A self-test must have a member with a package to import, got none; there is nothing to test"
        )
    name = max(dependents, key=lambda name: (len(dependents[name]) < len(probed), len(dependents[name]), name))
    return name, dependents[name]


def _dependents(probed: Mapping[str, Probed], member: str) -> frozenset[str]:
    return frozenset(name for name, each in probed.items() if member in each.needs)


def expect(ended: Ended, *, red: frozenset[str], known: frozenset[str]) -> None:
    """Raise `SelfTestFailed` unless exactly `red` failed, and exactly `known` came from the cache."""
    if ended.cache.local != "on":
        raise SelfTestFailed(
            f"The self-test must have a cache to test, got none: {ended.cache.note}; see to that first"
        )
    found = {
        status: frozenset(each.task.member for each in ended.results if each.status is status) for status in Status
    }
    if found[Status.FAILED] != red:
        raise SelfTestFailed(_difference("fail", found[Status.FAILED], red))
    if found[Status.CACHED] != known:
        raise SelfTestFailed(_difference("come from the cache", found[Status.CACHED], known))


def _difference(what: str, got: frozenset[str], wanted: frozenset[str]) -> str:
    shown, found = (", ".join(sorted(names)) or "nobody" for names in (wanted, got))
    return f"Exactly {shown} must {what}, got {found}; do not trust the cache, run with --no-cache"
