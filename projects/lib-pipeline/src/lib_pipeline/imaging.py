"""The images of one call: what they wait for, which of them are there already, and the making of the others."""

import platform
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_pipeline.errors import PipelineError
from lib_pipeline.image import BASE, Image, images
from lib_pipeline.image_builder import BaseMissing, Builder, NoBuilder, Order, find_builder
from lib_pipeline.image_context import Kitchen
from lib_pipeline.mirror import log_file, out_folder
from lib_pipeline.plan import Ground, Task, plan
from lib_pipeline.results import Result, Screen, Status
from lib_pipeline.targets import Target

SHOWN = 12  # characters of a key that name an image
CHECKS = (Target.LINT, Target.TYPES, Target.TEST)
NO_BUILDER = "no builder"
MACHINES = {
    "x86_64": "x86_64-manylinux_2_28",
    "amd64": "x86_64-manylinux_2_28",
    "arm64": "aarch64-manylinux_2_28",
    "aarch64": "aarch64-manylinux_2_28",
}


class PlatformUnknown(PipelineError):
    """No image can be made for this kind of machine."""


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """How images are to be made: on which base, by what (None: by what is there), and what is put before their names.

    `tested` images are of members whose lint, types and tests passed. Images that are `required` were asked for by
    name: nothing is begun where they cannot be made. The others are left out where nothing builds images.
    """

    required: bool = True
    base: str = BASE
    builder: str | None = None
    prefix: str = ""
    tested: bool = True


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image that is there now: its key, names and id, and how it came there."""

    image: Image
    key: str
    tags: tuple[str, ...]
    id: str
    tested: bool
    result: Result


def prepare_images(
    request: ImageRequest, ground: Ground, members: Sequence[str], environment: Mapping[str, str]
) -> "Imaging":
    """Find out which images are wanted, what makes them and whether their base is here; raises `PipelineError`."""
    wanted = tuple(images(ground.workspace, members, required=request.required))
    imaging = Imaging(request=request, ground=ground, wanted=wanted)
    if not wanted:
        return imaging
    try:
        imaging = replace(imaging, builder=find_builder(request.builder, environment))
        return replace(imaging, base=imaging.builder.identify(request.base) if imaging.builder else "")
    except (NoBuilder, BaseMissing) as error:
        if request.required or (request.builder and isinstance(error, NoBuilder)):
            raise
        return replace(imaging, trouble=error)


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """The images that are wanted, what makes them of which base, and what is in the way of that."""

    request: ImageRequest
    ground: Ground
    wanted: tuple[Image, ...]
    builder: Builder | None = None
    base: str = ""
    trouble: PipelineError | None = None

    @property
    def left_out(self) -> str:
        """Why there will be none, where that is no failure."""
        return f"{NO_BUILDER} ({self.trouble.advice})" if isinstance(self.trouble, NoBuilder) else ""

    def tasks(self) -> list[Task]:
        """What must have passed before, for every member that is in an image."""
        if self.trouble or not self.wanted:
            return []
        return plan(self.ground, self._before, {member.name for image in self.wanted for member in image.holds})

    @property
    def _before(self) -> tuple[Target, ...]:
        return (*(CHECKS if self.request.tested else ()), Target.BUILD)

    def reached_by(self, tasks: Iterable[Task]) -> "Imaging":
        """The images with a member in them that one of some tasks is for."""
        reached = {task.member for task in tasks}
        wanted = (image for image in self.wanted if reached & {member.name for member in image.holds})
        return replace(self, wanted=tuple(wanted))

    def make(
        self, results: Sequence[Result], call: Path, screen: Screen, *, anew: bool
    ) -> tuple[list[Result], list[Made]]:
        """Make what is not there yet, `anew` even what is; returns how each image ended, and those that are there.

        `results` are those of `tasks`, `call` is the folder that they were performed in.
        """
        ready = [image for image in self.wanted if not self._red(image, results)]
        ended = [self._without(image, call) for image in self.wanted if self.trouble or image not in ready]
        made: list[Made] = []
        if ready and not self.trouble:
            making = _Making(imaging=self, call=call, screen=screen, kitchen=_kitchen(self.ground))
            failed, made = making.make(ready, results, anew=anew)
            ended += failed
        for result in ended:
            screen.ended(result)
        return [*ended, *(each.result for each in made)], made

    def _red(self, image: Image, results: Sequence[Result]) -> bool:
        members = {member.name for member in image.holds}
        red = {
            each.task.member for each in results if each.status is Status.FAILED and each.task.target in self._before
        }
        return not red.isdisjoint(members)

    def _without(self, image: Image, call: Path) -> Result:
        if self.left_out:
            return Result(task=_task(image), status=Status.NOTHING, note=NO_BUILDER)
        if self.trouble is not None:
            return _failed(image, self.trouble, call)
        return Result(task=_task(image), status=Status.NOTHING, note="checks are red")


@dataclass(frozen=True, kw_only=True)
class _Making:
    imaging: Imaging
    call: Path
    screen: Screen
    kitchen: Kitchen

    def make(
        self, wanted: Sequence[Image], results: Sequence[Result], *, anew: bool
    ) -> tuple[list[Result], list[Made]]:
        """Look for all side by side; make one after another, for each is made with all cores."""
        try:
            wheels = self._wheels(wanted, results)
        except PipelineError as error:
            return [_failed(image, error, self.call) for image in wanted], []
        with ThreadPoolExecutor() as side_by_side:
            known = list(side_by_side.map(lambda image: None if anew else self._find(image, wheels), wanted))
        failed, made = [], []
        for image, found in zip(wanted, known, strict=True):
            try:
                made.append(found or self._build(image, wheels))
            except PipelineError as error:
                failed.append(_failed(image, error, self.call))
            else:
                if not found:
                    self.screen.ended(made[-1].result)
        return failed, made

    def _wheels(self, wanted: Sequence[Image], results: Sequence[Result]) -> dict[str, Path]:
        """Those that the call has built or remembered, and for the others, which no two builds make alike, our own."""
        built = {
            result.task.member: wheel
            for result in results
            if result.task.target is Target.BUILD and result.task.keeps and result.task.commands
            for wheel in (out_folder(self.call, result.task.member, Target.BUILD) / "dist").glob("*.whl")
        }
        held = {member.name: member for image in wanted for member in image.holds}
        missing = [member for name, member in held.items() if name not in built]
        return built | self.kitchen.build_wheels(missing, self.call / "wheels")

    def _key(self, image: Image, wheels: Mapping[str, Path]) -> str:
        tested = self.imaging.request.tested
        return image.key(wheels, base=self.imaging.base, platform=self.kitchen.platform, tested=tested)

    def _tags(self, image: Image, key: str) -> tuple[str, str]:
        name = f"{self.imaging.request.prefix}{image.name}"
        return f"{name}:{key[:SHOWN]}", f"{name}:latest"

    def _find(self, image: Image, wheels: Mapping[str, Path]) -> Made | None:
        key = self._key(image, wheels)
        tags = self._tags(image, key)
        builder = self._builder
        found = builder.find(tags[0], key)
        if found is None:
            return None
        if builder.find(tags[1], key) != found:
            builder.tag(found, tags)
        return self._made(image, key, found, Result(task=_task(image, key), status=Status.CACHED))

    def _build(self, image: Image, wheels: Mapping[str, Path]) -> Made:
        self.screen.started(_task(image))
        began = time.monotonic()
        key = self._key(image, wheels)
        tags = self._tags(image, key)
        context = self.call / "contexts" / image.name
        context.mkdir(parents=True)
        self.kitchen.assemble(image, wheels, context)
        request = self.imaging.request
        order = Order(context=context, base=request.base, tags=tags, key=key, tested=request.tested)
        found = self._builder.build(order)
        shutil.rmtree(context)
        seconds = time.monotonic() - began
        return self._made(image, key, found, Result(task=_task(image, key), status=Status.RAN, seconds=seconds))

    def _made(self, image: Image, key: str, found: str, result: Result) -> Made:
        tested = self.imaging.request.tested
        noted = replace(result, note="" if tested else "untested")
        return Made(image=image, key=key, tags=self._tags(image, key), id=found, tested=tested, result=noted)

    @property
    def _builder(self) -> Builder:
        if self.imaging.builder is None:
            raise NoBuilder("none")
        return self.imaging.builder


def _task(image: Image, key: str = "") -> Task:
    """An image as a row of the results: it is no task of Turborepo, for what it makes is kept by a builder."""
    return Task(
        member=image.name,
        target=Target.IMAGE,
        commands=(),
        key=key,
        files={},
        products=None,
        keeps=False,
        nothing="",
    )


def _failed(image: Image, error: PipelineError, call: Path) -> Result:
    log = log_file(call, image.name, Target.IMAGE)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{error}\n", encoding="utf-8")
    return Result(task=_task(image), status=Status.FAILED, note=str(error).splitlines()[0][:200], log=log)


def image_report(made: Sequence[Made]) -> list[dict[str, Any]]:
    """The images for programs; the shape is described in the guide."""
    return [
        {
            "member": each.image.name,
            "tags": list(each.tags),
            "id": each.id,
            "key": each.key,
            "tested": each.tested,
            "status": each.result.status,
            "seconds": round(each.result.seconds, 3),
        }
        for each in made
    ]


def _kitchen(ground: Ground) -> Kitchen:
    toolchain = ground.toolchain
    return Kitchen(
        root=ground.workspace.root,
        uv=toolchain.uv,
        python=toolchain.python,
        version=_version(toolchain.identity["python"]),
        platform=_platform(),
        variables=ground.surroundings.variables,
    )


def _version(described: str) -> str:
    """`3.13` of what the interpreter says of itself."""
    return ".".join(described.removeprefix('["').split()[0].split(".")[:2])


def _platform() -> str:
    machine = platform.machine().lower()
    found = MACHINES.get(machine)
    if found is None:
        raise PlatformUnknown(f"An image must be for {', '.join(sorted(MACHINES))}, got {machine}; build it elsewhere")
    return found
