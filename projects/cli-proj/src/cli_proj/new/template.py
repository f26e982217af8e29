"""Templates are a service and a workflow that run as they are; what is made of one is a copy with other names in it."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from cli_proj.failure import CommandFailed, conflict, usage
from cli_proj.new.names import Name

# A test in a template is not called one: it would be collected here, where what it tests is not installed.
WAITING, COLLECTED = "check_", "test_"
SERVICE, WORKFLOW = "a-service", "a-workflow"
PLACEHOLDER_PORT = "8010"


def filled(template: str, name: Name, *, port: int | None = None) -> dict[PurePosixPath, str]:
    """The files of a template by their places, with `name` and `port` for those it has itself."""
    stands_for = {"new-service": name.text, "new_service": name.package, "NEW_SERVICE": name.variable}
    stands_for |= {"new-workflow": name.text, "new_workflow": name.package}
    if port is not None:
        stands_for[PLACEHOLDER_PORT] = str(port)
    found = _files(files("cli_proj") / "templates" / template, PurePosixPath())
    return dict(sorted((_place(path, stands_for), _replaced(text, stands_for)) for path, text in found))


def place_folder(content: Mapping[PurePosixPath, str], target: Path, *, beside: Path) -> None:
    """Make the folder `target`, whole or not at all; `beside` is a folder on the same disk where it may grow.

    Raises a usage error where nothing can be written, and a conflict where `target` is taken.
    """
    try:
        draft = Path(tempfile.mkdtemp(prefix=".evs-new-", dir=beside))
    except OSError as error:
        raise _not_writable(beside, error) from error
    try:
        _write(content, draft)
        draft.chmod(0o777 & ~_umask())  # mkdtemp makes folders that are for nobody else
        draft.rename(target)
    except OSError as error:
        raise _taken(target) if target.exists() else _not_writable(target.parent, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def place_files(content: Mapping[PurePosixPath, str], folder: Path) -> list[Path]:
    """Write files into `folder`, all or none, over nothing that is there; returns their paths."""
    targets = {folder / path: text for path, text in content.items()}
    for target in targets:
        if target.exists() or target.is_symlink():
            raise _taken(target)
    made: list[Path] = []
    try:
        for target, text in targets.items():
            with target.open("x", encoding="utf-8") as file:
                made.append(target)
                file.write(text)
    except OSError as error:
        for target in made:
            target.unlink(missing_ok=True)
        raise _taken(target) if isinstance(error, FileExistsError) else _not_writable(folder, error) from error
    return made


def _files(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry, path / entry.name)
        elif entry.is_file() and not entry.name.endswith(".pyc"):
            yield path / entry.name, entry.read_text(encoding="utf-8")


def _place(path: PurePosixPath, stands_for: Mapping[str, str]) -> PurePosixPath:
    name = path.name
    collected = COLLECTED + name.removeprefix(WAITING) if name.startswith(WAITING) else name
    return PurePosixPath(_replaced(str(path.with_name(collected)), stands_for))


def _replaced(text: str, stands_for: Mapping[str, str]) -> str:
    # In one pass: a name that holds a placeholder (`shop-8010`) stays as it is.
    return re.sub("|".join(map(re.escape, stands_for)), lambda found: stands_for[found[0]], text)


def _write(content: Mapping[PurePosixPath, str], folder: Path) -> None:
    for path, text in content.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _taken(target: Path) -> CommandFailed:
    return conflict(f"a place must be free, got {target}, where something is; choose another name")


def _not_writable(folder: Path, error: OSError) -> CommandFailed:
    return usage(f"a folder must be writable, got {folder}: {error.strerror}", hint="choose another with --into")
