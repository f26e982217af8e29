"""What `new-workflow` does, on a database of the test's own."""

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType

from lib_workflows.testing import environment

FILE = Path(__file__).with_name("new_workflow.py")


def load() -> ModuleType:
    """The workflow's file, loaded as `evs up --workflows` loads it."""
    specification = importlib.util.spec_from_file_location(FILE.stem, FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_somebody_is_greeted(tmp_path: Path) -> None:
    flows = load()
    greet = flows.new_workflow

    async def run() -> object:
        async with environment(f"sqlite:///{tmp_path / 'runs.db'}", [greet]) as env:
            handle = await env.engine.start(greet, flows.Guest(name="Ada"))
            return await env.result(handle)

    assert asyncio.run(run()) == flows.Greeting(text="Hello, Ada")
