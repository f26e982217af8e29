"""Workspaces as others make them, and the pipeline run in them as others run it: as a process of its own."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lib_events.testing import missing
from lib_pipeline.rooms import locked
from lib_pipeline.settings import cache_folder
from lib_pipeline.turbo_binary import TurboMissing, find_turbo

# lib-core is what all others but lib-lone stand on.
MEMBERS = {"lib-core": (), "lib-bus": ("lib-core",), "app-svc": ("lib-bus",), "lib-lone": ()}
RUN_SECONDS = 100
ROOMS = ("cache/rooms/*/member-*", "cache/rooms/*/workspace", "cache/rooms/*/tools/mypy")
SECRETS = ("PIPELINE_", "TURBO_")
ROOT_MANIFEST = """
[tool.uv.workspace]
members = ["{layout}/*"]

[tool.uv]
default-groups = ["dev"]

[dependency-groups]
dev = ["mypy", "pytest", "ruff"]

[tool.mypy]
strict = true

[tool.pytest.ini_options]
addopts = "--import-mode=importlib"
"""
MEMBER_MANIFEST = """[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.13"
dependencies = [{needs}]

[build-system]
requires = ["uv_build>=0.8,<1"]
build-backend = "uv_build"

[tool.uv.sources]
{sources}"""
LOCKED = "idna==3.11"
SCRIPT = """
[project.scripts]
app-svc = "app_svc:main"

[tool.pipeline.image]
environment = { GREETING = "hello" }
health = "http://127.0.0.1:1/healthz"
"""
SOURCE = """import os

from idna import encode
from lib_bus import value as lib_bus_value


def value() -> int:
    return 1 + lib_bus_value()


def main() -> int:
    print(os.environ["GREETING"], value(), encode("bär.example").decode())
    return 0
"""
ROOT_PROJECT = """[project]
name = "acme"
version = "1.0"
requires-python = ">=3.13"
dependencies = []

[tool.uv.sources]
"""


def write_workspace(
    root: Path,
    *,
    layout: str = "projects",
    members: Mapping[str, tuple[str, ...]] = MEMBERS,
    tests: int = 1,
    root_project: bool = False,
) -> None:
    """A workspace whose members return how many members they stand on, themselves included, and test that."""
    root.mkdir(parents=True)
    head = ROOT_PROJECT if root_project else ""
    (root / "pyproject.toml").write_text(head + ROOT_MANIFEST.format(layout=layout))
    (root / ".python-version").write_text("3.13\n")
    (root / ".gitignore").write_text(".venv/\n__pycache__/\ndist/\n*.local\n")
    (root / "conftest.py").write_text('"""Nothing to share."""\n')
    for name, needs in members.items():
        write_member(root / layout / name, needs, height(members, name), tests=tests)
    subprocess.run(["uv", "lock", "--quiet"], cwd=root, check=True, capture_output=True, env=outside_environment())


def write_member(folder: Path, needs: tuple[str, ...], value: int, *, tests: int = 1) -> None:
    package = folder.name.replace("-", "_")
    (folder / "src" / package).mkdir(parents=True)
    (folder / "tests").mkdir()
    sources = "".join(f"{need} = {{ workspace = true }}\n" for need in needs)
    manifest = MEMBER_MANIFEST.format(name=folder.name, needs=", ".join(f'"{need}"' for need in needs), sources=sources)
    (folder / "pyproject.toml").write_text(manifest)
    imports = "".join(
        f"from {need.replace('-', '_')} import value as {need.replace('-', '_')}_value\n" for need in needs
    )
    total = " + ".join(("1", *(f"{need.replace('-', '_')}_value()" for need in needs)))
    gap = "\n\n" if imports else ""
    (folder / "src" / package / "__init__.py").write_text(f"{imports}{gap}def value() -> int:\n    return {total}\n")
    (folder / "src" / package / "py.typed").touch()
    cases = "".join(f"\n\ndef test_value_{number}():\n    assert value() == {value}\n" for number in range(tests))
    (folder / "tests" / f"test_{package}.py").write_text(f"from {package} import value\n{cases}")


def height(members: Mapping[str, tuple[str, ...]], name: str) -> int:
    return 1 + sum(height(members, need) for need in members[name])


def outside_environment(**changes: str) -> dict[str, str]:
    """This process's environment without what belongs to the workspace that these tests are in."""
    ours = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_RUN_RECURSION_DEPTH")
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith(SECRETS)}
    return kept | changes


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of the pipeline: exit code, what it printed, and its report, if it got so far."""

    code: int
    out: str
    err: str
    report: dict = field(default_factory=dict)

    def members(self, status: str, target: str = "test") -> set[str]:
        """The members whose task ended so, the root aside."""
        tasks = self.report["tasks"]
        ended = {task["member"] for task in tasks if task["status"] == status and task["target"] == target}
        return ended - {"workspace", "acme"}


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A workspace on disk, and a cache folder of its own."""

    root: Path
    cache: Path
    layout: str = "projects"

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lib_pipeline", *arguments],
            cwd=self.root,
            env=outside_environment(PIPELINE_CACHE_DIR=str(self.cache), **environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pipeline(self, *arguments: str, preexec_fn=None, **environment: str) -> Run:
        report = self.cache.parent / "report.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "lib_pipeline", *arguments, "--report", str(report)],
            cwd=self.root,
            env=outside_environment(PIPELINE_CACHE_DIR=str(self.cache), **environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
            preexec_fn=preexec_fn,
        )
        content = json.loads(report.read_text()) if report.exists() else {}
        return Run(code=done.returncode, out=done.stdout, err=done.stderr, report=content)

    def source(self, member: str) -> Path:
        return self.root / self.layout / member / "src" / member.replace("-", "_") / "__init__.py"

    def test(self, member: str) -> Path:
        return self.root / self.layout / member / "tests" / f"test_{member.replace('-', '_')}.py"

    def git(self, *arguments: str) -> str:
        identity = [
            "-c",
            "user.name=Somebody",
            "-c",
            "user.email=somebody@example.org",
            "-c",
            "init.defaultBranch=main",
        ]
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout

    def lock(self) -> None:
        subprocess.run(["uv", "lock", "--quiet"], cwd=self.root, check=True, env=outside_environment())

    def clone(self, name: str, *, same_cache: bool) -> "Workspace":
        """The same files at another place."""
        home = self.cache.parent / name
        shutil.copytree(self.root, home / "clone", ignore=shutil.ignore_patterns("dist", ".venv"))
        cache = self.cache if same_cache else cache_with_turbo(home / "cache")
        return Workspace(root=home / "clone", cache=cache, layout=self.layout)


def cache_with_turbo(folder: Path) -> Path:
    """A cache folder with Turborepo, and nothing else that was not there before."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "turbo").symlink_to(turbo_program().parents[1], target_is_directory=True)
    return folder


@functools.cache
def turbo_program() -> Path:
    return find_turbo(cache_folder(os.environ), outside_environment(), Path(__file__).parent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs whole pipelines: `-m "not pipeline"` leaves it out."""
    for item in items:
        if "make_workspace" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.pipeline)


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """Workspaces by their shape, locked and committed once."""
    folder = tmp_path_factory.mktemp("templates")

    @functools.cache
    def template(layout: str, *, root_project: bool) -> Path:
        root = folder / f"{layout}-{root_project}"
        try:
            write_workspace(root, layout=layout, root_project=root_project)
        except subprocess.CalledProcessError as error:
            missing(f"a package registry, for what the workspace is linted and tested with ({error.stderr})")
        repository = Workspace(root=root, cache=root)
        repository.git("init", "--quiet", "--template=")
        repository.git("add", "--all")
        repository.git("commit", "--quiet", "--message", "As it was")
        return root

    return template


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Where a process has its workspaces, one after the other: rooms are told apart by the path they are made for."""
    return tmp_path_factory.mktemp("home")


def clear(home: Path, *, rooms: bool) -> None:
    """Take away what an earlier test left; with `rooms` False its environments stay, and uv makes them fit."""
    kept = home / "kept"
    for room in [] if rooms else [room for pattern in ROOMS for room in home.glob(pattern)]:
        place = kept / room.relative_to(home)
        place.parent.mkdir(parents=True, exist_ok=True)
        room.rename(place)
    for path in home.iterdir():
        if path.is_dir() and path != kept:
            shutil.rmtree(path)
    if kept.exists():
        (kept / "cache").rename(home / "cache")
        kept.rmdir()


@pytest.fixture
def make_workspace(templates, home):
    """Makes a workspace of some shape, with Turborepo at hand and no result in its cache.

    Its environments are those of an earlier test of this process; `anew` for one that is about making them.
    """

    def make(layout: str = "projects", *, root_project: bool = False, anew: bool = False) -> Workspace:
        clear(home, rooms=anew)
        shutil.copytree(templates(layout, root_project=root_project), home / "workspace")
        try:
            cache = cache_with_turbo(home / "cache")
        except TurboMissing as error:
            missing(f"the npm registry, for Turborepo ({error})")
        return Workspace(root=home / "workspace", cache=cache, layout=layout)

    return make


@pytest.fixture
def workspace(make_workspace):
    """A workspace of four members: one that all but one stand on."""
    return make_workspace()


@pytest.fixture(scope="session")
def know(tmp_path_factory) -> Callable[[Workspace, str], Workspace]:
    """Makes known that everything of a workspace, as all of its kind are made, has passed: found out once, by whichever
    test process comes first. For tests that begin with what is known already."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def fill(workspace: Workspace, kind: str) -> Workspace:
        results = shared / f"results-of-every-{kind}"
        with locked(shared / f"{kind}.lock"):
            if not results.exists():
                done = workspace.pipeline()
                assert done.code == 0, done.err
                shutil.copytree(workspace.cache / "results", results.with_suffix(".partial"))
                results.with_suffix(".partial").rename(results)
        shutil.copytree(results, workspace.cache / "results", dirs_exist_ok=True)
        return workspace

    return fill


@pytest.fixture
def known_workspace(workspace, know):
    """The same, where everything has passed and is known."""
    return know(workspace, "workspace")


@pytest.fixture
def bare_workspace(make_workspace):
    """The same, and no environment was ever made for it."""
    return make_workspace(anew=True)


@pytest.fixture
def program(make_workspace):
    """app-svc is a program; it needs lib-bus, that needs lib-core, and a package from elsewhere."""
    made = make_workspace()
    manifest = made.root / made.layout / "app-svc" / "pyproject.toml"
    text = manifest.read_text().replace('dependencies = ["lib-bus"]', f'dependencies = ["lib-bus", "{LOCKED}"]')
    manifest.write_text(text.replace("[build-system]", f"{SCRIPT}\n[build-system]"))
    made.source("app-svc").write_text(SOURCE)
    made.lock()
    return made


@pytest.fixture
def known_program(program, know):
    """The same, where everything has passed and is known."""
    return know(program, "program")


@pytest.fixture
def new_member():
    """Writes one more member."""
    return write_member


@pytest.fixture
def outside():
    """The environment of a process that belongs to no workspace."""
    return outside_environment
