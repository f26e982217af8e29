"""What keeps the pipeline from starting: each says what must hold, what it found, and what to do."""

from collections.abc import Iterable
from pathlib import Path


class PipelineError(Exception):
    """Nothing was run; the pipeline exits with 2."""


class NoWorkspace(PipelineError):
    """No folder from here upwards is the root of a uv workspace."""

    def __init__(self, start: Path) -> None:
        self.start = start
        super().__init__(
            f"A pipeline must start inside a uv workspace, got {start}; "
            "go to a folder below a pyproject.toml with [tool.uv.workspace], or name its root with --root"
        )


class LockOutdated(PipelineError):
    """`uv.lock` is missing, or says something else than the members' `pyproject.toml`."""

    def __init__(self, root: Path, reason: str) -> None:
        self.root, self.reason = root, reason
        super().__init__(f"uv.lock must match the pyproject.toml files of {root}, got: {reason}; run `uv lock`")


class ManifestUnreadable(PipelineError):
    """A file of the workspace is no TOML, or has not the shape that uv gives it."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} must be readable as TOML of uv's shape, got: {reason}; correct it")


class MembersInACycle(PipelineError):
    """Members that need one another to run can be built and tested in no order."""

    def __init__(self, members: Iterable[str]) -> None:
        self.members = tuple(members)
        shown = " -> ".join((*self.members, self.members[0]))
        super().__init__(f"Members must not depend on one another in a cycle, got {shown}; take one dependency out")


class UnknownMembers(PipelineError):
    """Names on the command line that no member has."""

    def __init__(self, names: Iterable[str], known: Iterable[str]) -> None:
        self.names, self.known = tuple(names), tuple(known)
        super().__init__(f"A member must be one of {', '.join(self.known)}, got {', '.join(self.names)}; correct it")


class NoBase(PipelineError):
    """`--affected` has nothing to compare with."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"--affected must know which commit to compare with, got: {reason}; "
            "name one with --since, or leave --affected out"
        )


class NoRoom(PipelineError):
    """What the pipeline keeps or makes cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} must be writable, got: {reason}; free space there, or choose another place")


class SharedCacheUnclear(PipelineError):
    """Settings of the shared cache that contradict one another, or would let in what nobody signed."""


class SelfTestFailed(PipelineError):
    """The cache passed something that was broken, or did not know again what it had passed."""
