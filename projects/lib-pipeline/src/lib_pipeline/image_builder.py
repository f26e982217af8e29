"""What builds images from a folder: buildah or Docker, whichever is there. Both keep them by their key."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lib_pipeline.errors import PipelineError

KEY_LABEL = "org.uv-pipeline.key"
TESTED_LABEL = "org.uv-pipeline.tested"
PULL_SECONDS = 600.0
PLUGIN_SINCE = 23
NO_ENGINE = "a Docker client without an engine"
NO_FILES = "scratch"  # the base that is nothing, and needs not be fetched


class NoBuilder(PipelineError):
    """Nothing that builds images is there, or not the one that was asked for."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"Images must be built by buildah or by Docker, got {reason}; install buildah, or start Docker"
        )

    @property
    def advice(self) -> str:
        """What to do, in the fewest words."""
        return "start Docker, or install buildah" if self.reason == NO_ENGINE else "install buildah or docker"


class BaseMissing(PipelineError):
    """What images stand on is neither here nor to be had from where its name leads."""

    def __init__(self, base: str, reason: str) -> None:
        self.base, self.reason = base, reason
        super().__init__(
            f"The base of images must be here or within reach, got no {base}: {reason}; "
            "connect to its registry, name another with --base, or leave images out"
        )


class ImageFailed(PipelineError):
    """The builder refused; its own words are in the message."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a builder is asked for: a folder with a Containerfile, a base, the names it is to have, its key, and
    whether lint, types and tests of what is in it have passed."""

    context: Path
    base: str
    tags: Sequence[str]
    key: str
    tested: bool

    @property
    def labels(self) -> list[str]:
        """As both builders take them."""
        found = {KEY_LABEL: self.key, TESTED_LABEL: str(self.tested).lower()}
        return [argument for name, text in found.items() for argument in ("--label", f"{name}={text}")]


class Builder(Protocol):
    """Builds images and keeps them. Raises `ImageFailed`."""

    @property
    def name(self) -> str:
        """The program."""
        ...

    def find(self, name: str, key: str) -> str | None:
        """The id of the image with that name, if it has that key."""
        ...

    def identify(self, base: str) -> str:
        """What tells this state of a base from any other: its id. Fetches it once; raises `BaseMissing`."""
        ...

    def build(self, order: Order) -> str:
        """Build an image and return its id."""
        ...

    def tag(self, image: str, names: Sequence[str]) -> None:
        """Give an image more names."""
        ...


@dataclass(frozen=True, kw_only=True)
class Buildah:
    """buildah: needs no daemon; the same folder gives the same image id."""

    variables: Mapping[str, str]
    name: str = "buildah"

    def find(self, name: str, key: str) -> str | None:
        """See `Builder`."""
        template = f'{{{{.FromImageID}}}} {{{{index .OCIv1.Config.Labels "{KEY_LABEL}"}}}}'
        return _with_key(("buildah", "inspect", "--type", "image", "--format", template, name), key, self.variables)

    def identify(self, base: str) -> str:
        """See `Builder`."""
        inspect = ("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", base)
        return _identity(inspect, ("buildah", "pull", "--quiet", base), base, self.variables)

    def build(self, order: Order) -> str:
        """See `Builder`."""
        # Docker's format knows HEALTHCHECK, and keeps the name of the container it was built in: never the same twice.
        reproducible = ("--format", "oci", "--timestamp", "0", "--omit-history")
        options = ("--layers", "--quiet", *reproducible, *order.labels)
        tags = [argument for tag in order.tags for argument in ("--tag", tag)]
        base = ("--build-arg", f"BASE={order.base}")
        done = _say(("buildah", "build", *options, *base, *tags, str(order.context)), self.variables)
        return f"sha256:{done.split()[-1].removeprefix('sha256:')}"

    def tag(self, image: str, names: Sequence[str]) -> None:
        """See `Builder`."""
        _say(("buildah", "tag", image.removeprefix("sha256:"), *names), self.variables)


@dataclass(frozen=True, kw_only=True)
class Docker:
    """Docker, with BuildKit where it can; ids are the same for the same folder from BuildKit 0.13 on."""

    variables: Mapping[str, str]
    has_buildkit: bool = True
    name: str = "docker"

    def find(self, name: str, key: str) -> str | None:
        """See `Builder`."""
        template = f'{{{{.Id}}}} {{{{index .Config.Labels "{KEY_LABEL}"}}}}'
        return _with_key(("docker", "image", "inspect", "--format", template, name), key, self.variables)

    def identify(self, base: str) -> str:
        """See `Builder`."""
        inspect = ("docker", "image", "inspect", "--format", "{{.Id}}", base)
        return _identity(inspect, ("docker", "pull", "--quiet", base), base, self.variables)

    def build(self, order: Order) -> str:
        """See `Builder`."""
        arguments = ["--build-arg", f"BASE={order.base}"]
        if self.has_buildkit:
            arguments += ["--build-arg", "SOURCE_DATE_EPOCH=0"]
        tags = [argument for tag in order.tags for argument in ("--tag", tag)]
        containerfile = ("--file", str(order.context / "Containerfile"), *order.labels)
        environment = dict(self.variables) | {"DOCKER_BUILDKIT": str(int(self.has_buildkit))}
        command = ("docker", "build", "--quiet", *containerfile, *arguments, *tags, str(order.context))
        return _say(command, environment).split()[-1]

    def tag(self, image: str, names: Sequence[str]) -> None:
        """See `Builder`."""
        for name in names:
            _say(("docker", "tag", image, name), self.variables)


def find_builder(asked: str | None, environment: Mapping[str, str] = os.environ) -> Builder:
    """The builder that was asked for, else the first that works here; raises `NoBuilder`."""
    if asked not in (None, "buildah", "docker"):
        raise NoBuilder(f"{asked!r} asked for")
    if asked in (None, "buildah") and shutil.which("buildah", path=environment.get("PATH")):
        return Buildah(variables=environment)
    if asked in (None, "docker") and shutil.which("docker", path=environment.get("PATH")):
        answer = _do(("docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}"), environment)
        if answer.returncode == 0:
            return Docker(variables=environment, has_buildkit=_has_buildkit(answer.stdout.split()[0], environment))
        raise NoBuilder(NO_ENGINE)
    raise NoBuilder("neither" if asked is None else f"no {asked}")


def _has_buildkit(client: str, variables: Mapping[str, str]) -> bool:
    """Clients since 23.0 speak to BuildKit through a plugin, which Debian and others package apart."""
    major = client.partition(".")[0]
    return (major.isdigit() and int(major) < PLUGIN_SINCE) or _do(
        ("docker", "buildx", "version"), variables
    ).returncode == 0


def _identity(inspect: Sequence[str], pull: Sequence[str], base: str, variables: Mapping[str, str]) -> str:
    """The id of a base, fetched first where it is not here: by its name alone, two calls would tell of two bases."""
    if base == NO_FILES:
        return base
    found = _do(inspect, variables)
    if found.returncode != 0:
        _pull(pull, base, variables)
        found = _do(inspect, variables)
    if found.returncode != 0:
        raise BaseMissing(base, _last_line(found.stderr))
    return found.stdout.strip()


def _pull(command: Sequence[str], base: str, variables: Mapping[str, str]) -> None:
    try:
        done = _do(command, variables, timeout=PULL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BaseMissing(base, f"no answer within {PULL_SECONDS:g} s") from error
    if done.returncode != 0:
        raise BaseMissing(base, _last_line(done.stderr))


def _last_line(words: str) -> str:
    """Builders tell of every attempt; the last line is about the last."""
    return next((line.strip()[-1_000:] for line in reversed(words.splitlines()) if line.strip()), "no word why")


def _with_key(command: Sequence[str], key: str, variables: Mapping[str, str]) -> str | None:
    """The id that the command prints before a key, if it is that key; None also where there is no such image."""
    found, _, labelled = _do(command, variables).stdout.strip().partition(" ")
    return f"sha256:{found.removeprefix('sha256:')}" if labelled == key else None


def _say(command: Sequence[str], variables: Mapping[str, str]) -> str:
    done = _do(command, variables)
    if done.returncode != 0:
        raise ImageFailed(
            f"{' '.join(command[:2])} must succeed, got: {done.stderr.strip()[-2_000:] or done.returncode}"
        )
    return done.stdout


def _do(
    command: Sequence[str], variables: Mapping[str, str], *, timeout: float | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=dict(variables), capture_output=True, text=True, check=False, timeout=timeout)
