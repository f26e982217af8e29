"""Workflows from elsewhere: a file, a module, or the entry points `evs.workflows` of an installed package."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from app_svc.workflows import BUILT_IN
from lib_events.event import EventType
from lib_events.subscription import Subscription
from lib_workflows import DefinitionError, Registry, Workflow
from lib_workflows.authoring.workflow import AnyWorkflow

ENTRY_POINT_GROUP = "evs.workflows"


class WorkflowsNotLoaded(Exception):
    """Workflows that were asked for cannot be loaded; the text says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The workflows, and what else their modules declare."""

    workflows: Registry
    event_types: Sequence[EventType[Any]]
    subscriptions: Sequence[Subscription]


def load_workflows(names: Sequence[str]) -> Loaded:
    """Load the built-in workflows, those of installed packages, and those of `names` (files or modules).

    Raises `WorkflowsNotLoaded`.
    """
    modules = [sys.modules[workflow.function.__module__] for workflow in BUILT_IN]
    found: list[AnyWorkflow] = list(BUILT_IN)
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        module, workflows = _load_entry_point(entry_point)
        modules.append(module)
        found += workflows
    for name in names:
        module = _load_module(name)
        modules.append(module)
        found += _workflows_of(module, name)
    try:
        return Loaded(Registry.of(found), _members_of_all(modules, EventType), _members_of_all(modules, Subscription))
    except DefinitionError as error:
        raise WorkflowsNotLoaded(f"workflows must not share a name and a version: {error}; rename one") from error


def _load_entry_point(entry_point: EntryPoint) -> tuple[ModuleType, list[AnyWorkflow]]:
    try:
        value = entry_point.load()
    except Exception as error:
        raise WorkflowsNotLoaded(
            f"entry point {entry_point.name!r} ({entry_point.value}) of {ENTRY_POINT_GROUP} must load, got "
            f"{type(error).__name__}: {error}; fix the package or uninstall it"
        ) from error
    if isinstance(value, Workflow):
        return sys.modules[value.function.__module__], [value]
    if isinstance(value, ModuleType):
        return value, _workflows_of(value, entry_point.value)
    raise WorkflowsNotLoaded(
        f"entry point {entry_point.name!r} of {ENTRY_POINT_GROUP} must name a workflow or a module, got {value!r}"
    )


def _load_module(name: str) -> ModuleType:
    try:
        return _load_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except WorkflowsNotLoaded:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise WorkflowsNotLoaded(
                f"--workflows must name a file ending in .py or an importable module, got {name!r}: {error}"
            ) from error
        raise WorkflowsNotLoaded(f"{name} must load without an error, got {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise WorkflowsNotLoaded(f"--workflows must name a file that exists, got {path}; the folder is {Path.cwd()}")
    loader = _FreshLoader(path.stem, str(path))
    specification = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    if specification is None or specification.loader is None:
        raise WorkflowsNotLoaded(f"{path} must be a Python file")
    module = importlib.util.module_from_spec(specification)
    # A declared error and a forward reference are found again through the module.
    if sys.modules.setdefault(path.stem, module) is not module:
        raise WorkflowsNotLoaded(f"{path} must not be named like the module {path.stem!r} that exists; rename the file")
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


class _FreshLoader(SourceFileLoader):
    """Reads the source each time: a file saved twice within a second may look unchanged to the bytecode cache."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError(f"{path} is not cached")


def _members[T](module: ModuleType, kind: type[T]) -> list[T]:
    return [value for value in vars(module).values() if isinstance(value, kind)]


def _workflows_of(module: ModuleType, name: str) -> list[AnyWorkflow]:
    workflows: list[AnyWorkflow] = _members(module, Workflow)
    if not workflows and not _members(module, Subscription):
        raise WorkflowsNotLoaded(
            f"{name} must have a workflow or a subscription in it, got none; "
            "decorate an async def with @workflow(…), or a handler with @subscribe(…)"
        )
    return workflows


def _members_of_all[T](modules: Iterable[ModuleType], kind: type[T]) -> list[T]:
    """What the modules hold of a kind, each once: one may import it from another."""
    return list({id(found): found for module in modules for found in _members(module, kind)}.values())
