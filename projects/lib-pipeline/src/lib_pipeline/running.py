"""One call of the pipeline, from the workspace's files to the results. Wires what the other modules are."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lib_pipeline.affected import affected, changed_files
from lib_pipeline.errors import LockOutdated, NoRoom
from lib_pipeline.imaging import ImageRequest, Imaging, Made, prepare_images
from lib_pipeline.inventory import Inventory, digest_of, take_inventory
from lib_pipeline.mirror import out_folder
from lib_pipeline.plain_run import run_plainly
from lib_pipeline.plan import Ground, Task, plan
from lib_pipeline.results import CacheState, Result, Screen, Status
from lib_pipeline.rooms import Rooms, forget_vanished, rooms_folder
from lib_pipeline.settings import Settings, cache_folder, read_settings, surroundings
from lib_pipeline.shared_cache import SharedCache, shared_cache, trouble_with
from lib_pipeline.targets import Target
from lib_pipeline.toolchain import find_toolchain, find_uv
from lib_pipeline.turbo_binary import TurboMissing, find_turbo
from lib_pipeline.turbo_run import TurboFailed, TurboRun
from lib_pipeline.workspace import MANIFEST, Workspace, read_workspace

KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks the pipeline for.

    `since` is the commit that `affected_only` compares with; None for where the branch began. `uses_cache` False runs
    everything. `jobs` is how many tasks run side by side. `images` says how images are to be made; None for none.
    """

    root: Path
    targets: tuple[Target, ...]
    members: tuple[str, ...] = ()
    affected_only: bool = False
    since: str | None = None
    uses_cache: bool = True
    jobs: int = 1
    images: ImageRequest | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The results of a call, which caches took part, how long it took in all, and the images that are there now.

    `left_out` says what was asked for and not done, without anything having failed.
    """

    results: tuple[Result, ...]
    cache: CacheState
    seconds: float
    images: tuple[Made, ...] = ()
    left_out: str = ""


def run(request: Request, environment: Mapping[str, str], screen: Screen) -> Ended:
    """Plan and do what is asked for; raises `PipelineError` where nothing can be started."""
    began = time.monotonic()
    shared = shared_cache(environment)
    ground = survey(request.root, environment)
    planned, imaging = _planned(request, ground, environment)
    tasks = [task for task in planned if task.commands]
    results = [Result(task=task, status=Status.NOTHING, note=task.nothing) for task in planned if not task.commands]
    images: list[Made] = []
    cache = cache_folder(environment)
    with call_folder(cache, request.root) as folder:
        call = _Call(request=request, ground=ground, screen=screen, cache=cache, folder=folder)
        done, state = call.run(tasks, shared)
        results += done
        _deliver(done, folder, request.root)
        if imaging:
            ended, images = imaging.make(done, folder, screen, anew=not request.uses_cache)
            results += ended
    return Ended(
        results=tuple(sorted(results, key=lambda result: _place(result.task, ground))),
        cache=state,
        seconds=time.monotonic() - began,
        images=tuple(images),
        left_out=imaging.left_out if imaging else "",
    )


def _planned(request: Request, ground: Ground, environment: Mapping[str, str]) -> tuple[list[Task], Imaging | None]:
    """What is asked for, and what images wait for, each once; and the images."""
    imaging = prepare_images(request.images, ground, request.members, environment) if request.images else None
    asked = plan(ground, request.targets, request.members)
    needed = imaging.tasks() if imaging else []
    if request.affected_only:
        reached = affected((*asked, *needed), changed_files(request.root, request.since), request.root)
        names = {task.name for task in reached}
        asked = [task for task in asked if task.name in names or not task.commands]
        imaging = imaging and imaging.reached_by(reached)
        needed = imaging.tasks() if imaging else []
    return list({task.name: task for task in (*asked, *needed)}.values()), imaging


def _place(task: Task, ground: Ground) -> tuple[int, int]:
    """By target, then by member: the order in which things are done."""
    return list(Target).index(task.target), list(ground.workspace.members).index(task.member)


def survey(root: Path, environment: Mapping[str, str]) -> Ground:
    """Everything that keys are made of; side by side, because most of it is waiting for others."""
    with ThreadPoolExecutor() as pool:
        toolchain = pool.submit(find_toolchain, root)
        current = pool.submit(_check_lock, root)
        read = pool.submit(read_workspace, root)
        current.result()
        workspace = read.result()
        settings = read_settings(workspace.top.tool.get("pipeline", {}))
        return Ground(
            workspace=workspace,
            inventory=_inventory(workspace, settings),
            settings=settings,
            surroundings=surroundings(settings, environment),
            toolchain=toolchain.result(),
        )


def _check_lock(root: Path) -> None:
    """A lock that says something else than the manifests would make keys of what is not installed."""
    command = [find_uv(), "lock", "--check", "--quiet"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LockOutdated(root, " ".join(done.stderr.split()) or f"exit code {done.returncode}")


def _inventory(workspace: Workspace, settings: Settings) -> Inventory:
    manifests = [(member.path / MANIFEST).as_posix() for member in workspace.members.values()]
    inventory = take_inventory(workspace.root, certain=manifests)
    named = {
        path.relative_to(workspace.root).as_posix(): digest
        for pattern in settings.inputs
        for path in workspace.root.glob(pattern)
        if path.is_file() and (digest := digest_of(path))
    }
    return replace(inventory, digests={**inventory.digests, **named})


@contextmanager
def call_folder(cache: Path, root: Path) -> Iterator[Path]:
    """A folder for one call. What failed leaves its logs there for a day; raises `NoRoom`."""
    rooms = rooms_folder(cache, root)
    try:
        (rooms / "calls").mkdir(parents=True, exist_ok=True)
        (rooms / "workspace.path").write_text(str(root), encoding="utf-8")
        folder = Path(tempfile.mkdtemp(dir=rooms / "calls"))
    except OSError as error:
        raise NoRoom(cache, str(error)) from error
    forget_vanished(cache)
    _forget_old(rooms / "calls")
    try:
        yield folder
    finally:
        for rest in folder.iterdir():
            if rest.is_file():
                rest.unlink()
            elif rest.name != "logs":
                shutil.rmtree(rest, ignore_errors=True)


def _forget_old(calls: Path) -> None:
    """Another call may do the same at the same time."""
    for old in calls.iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old)


@dataclass(frozen=True, kw_only=True)
class _Call:
    request: Request
    ground: Ground
    screen: Screen
    cache: Path
    folder: Path

    def run(self, tasks: Sequence[Task], shared: SharedCache | None) -> tuple[list[Result], CacheState]:
        """With a cache if there is one, else without; either way every task has a result."""
        if not tasks or not self.request.uses_cache:
            return self._plainly(tasks, CacheState(local="off", shared="off"))
        try:
            program = find_turbo(self.cache, self.ground.surroundings.variables, self.request.root)
            usable, state = self._shared(shared)
            return self._by_turbo(tasks, program, usable), state
        except (TurboMissing, TurboFailed, OSError) as error:
            self.screen.say(f"no cache: {error}; running everything")
            return self._plainly(tasks, CacheState(local="off", shared="off", note=str(error)))

    def _shared(self, shared: SharedCache | None) -> tuple[SharedCache | None, CacheState]:
        if shared is None:
            return None, CacheState(local="on", shared="off")
        if trouble := trouble_with(shared):
            self.screen.say(f"no shared cache: {trouble}; going on with the local one")
            return None, CacheState(local="on", shared="unreachable", note=trouble)
        return shared, CacheState(local="on", shared="write" if shared.writes else "read")

    def _by_turbo(self, tasks: Sequence[Task], program: Path, shared: SharedCache | None) -> list[Result]:
        turbo = TurboRun(
            program=program,
            mirror=self.folder,
            results=self.cache / "results",
            rooms=self._rooms(),
            shared=shared,
            jobs=self.request.jobs,
            screen=self.screen,
        )
        return turbo.run(tasks)

    def _plainly(self, tasks: Sequence[Task], state: CacheState) -> tuple[list[Result], CacheState]:
        shutil.rmtree(self.folder / "members", ignore_errors=True)
        return run_plainly(tasks, self._rooms(), self.folder, self.screen, jobs=self.request.jobs), state

    def _rooms(self) -> Rooms:
        return Rooms(
            root=self.request.root,
            folder=rooms_folder(self.cache, self.request.root),
            call=self.folder,
            uv=self.ground.toolchain.uv,
            python=self.ground.toolchain.python,
            groups=self.ground.workspace.development_groups,
            variables=self.ground.surroundings.variables,
        )


def _deliver(results: Sequence[Result], folder: Path, root: Path) -> None:
    """Put what tasks made, or what the cache brought, where people look for it."""
    for result in results:
        task = result.task
        if task.products is None or result.status is Status.FAILED:
            continue
        target = root / task.products
        try:
            for product in out_folder(folder, task.member, task.target).iterdir():
                if product.is_dir():
                    shutil.copytree(product, target, dirs_exist_ok=True)
        except OSError as error:
            raise NoRoom(target, str(error)) from error


def default_jobs() -> int:
    """One task for each core."""
    return os.process_cpu_count() or 1
