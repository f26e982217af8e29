"""What a workflow is told of a failure is the same on every replay, whatever is loaded when it comes back."""

import gc
import sys

import pytest

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Signal, StepFailed, step, workflow
from lib_workflows.errors import RunFailed

go = Signal("go", str)
MODULE = "errors_of_a_late_import"
ODD = f"""
class Odd(ValueError):
    pass

Odd.__module__ = {MODULE!r}
"""


def raise_odd(*_):
    """Raise an error of a module that is imported as it is needed."""
    raise __import__(MODULE).Odd("it is odd")


@step(errors=(ValueError,))
async def declares_its_base() -> None:
    """Fail by a subclass of what is declared."""
    raise_odd()


@step
async def declares_nothing() -> None:
    """Fail for good by what is not declared."""
    raise_odd()


async def forget(_: None) -> None:
    """Undo."""


@workflow(name="odd-child")
async def odd_child(ctx: Context) -> None:
    """Fail as it begins."""
    raise_odd(ctx)


@workflow(name="told")
async def told(ctx: Context, how: str) -> str:
    """Say what it was told, after a wait in which it may leave memory."""
    try:
        match how:
            case "a step":
                await ctx.step(declares_its_base, undo=forget)
            case "a transaction":
                await ctx.transaction(raise_odd)
            case _:
                await ctx.child(odd_child)
        said = "nothing"
    except (StepFailed, RunFailed):
        said = "wrapped"
    except ValueError:
        said = "itself"
    return f"{said}, {await ctx.wait_signal(go)}"


WORKFLOWS = [told, odd_child]


@pytest.fixture
def late(tmp_path, monkeypatch):
    """A module with an error; returns how to forget that it was imported."""
    (tmp_path / f"{MODULE}.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)

    def forget_it():
        sys.modules.pop(MODULE, None)
        gc.collect()  # a class is a subclass of its base as long as it lives

    yield forget_it
    forget_it()


async def tell(database_url, how):
    """Start a run and wait until it has been told."""
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = await engine.start(told, how, id="told")
        await wait_until(lambda: is_at(handle, "waiting"))


async def is_at(handle, status):
    return await handle.status() == status


@pytest.mark.parametrize("how", ["a step", "a transaction", "a child"])
async def test_an_error_is_told_as_before_although_nobody_has_loaded_its_class_yet(database_url, late, how):
    await tell(database_url, how)
    late()
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = engine.handle("told", told)
        await handle.signal(go, "gone on")
        assert await handle.result(timeout=30) == "itself, gone on"


@pytest.mark.parametrize("how", ["a step", "a transaction", "a child"])
async def test_a_run_is_parked_where_an_error_it_was_told_of_cannot_be_made_again(database_url, late, tmp_path, how):
    await tell(database_url, how)
    late()
    (tmp_path / f"{MODULE}.py").write_text("")
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = engine.handle("told", told)
        await handle.signal(go, "gone on")
        await wait_until(lambda: is_at(handle, "nondeterministic"))
        late()
        (tmp_path / f"{MODULE}.py").write_text(ODD)
        await handle.retry()
        await handle.signal(go, "come back")
        assert await handle.result(timeout=30) == "itself, gone on"


async def test_an_error_that_was_wrapped_stays_so_although_it_is_declared_by_now(database_url, late, monkeypatch):
    monkeypatch.setattr(declares_its_base, "options", declares_nothing.options)
    await tell(database_url, "a step")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(".")
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = engine.handle("told", told)
        await handle.signal(go, "gone on")
        assert await handle.result(timeout=30) == "wrapped, gone on"
