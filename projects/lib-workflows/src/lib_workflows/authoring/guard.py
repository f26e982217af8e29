"""Keeps asyncio out of workflows: while one is driven, the running loop is a guard that refuses and explains.

What a task, a future or a timer of the event loop does is in no history, so a replay could not repeat it.
`asyncio.sleep`, `gather`, `create_task`, `timeout` and their like all ask for the running loop first.
"""

import asyncio
import asyncio.events
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Never

from lib_workflows.errors import DeterminismError

ASYNCIO_FOLDER = str(Path(asyncio.__file__).parent)
INSTEAD = {
    "sleep": "await ctx.sleep(…)",
    "gather": "await ctx.gather(…)",
    "TaskGroup": "await ctx.gather(…)",
    "create_task": "await ctx.gather(…)",
    "ensure_future": "await ctx.gather(…)",
    "wait": "await ctx.race(…)",
    "as_completed": "await ctx.race(…)",
    "wait_for": "async with ctx.timeout(…)",
    "timeout": "async with ctx.timeout(…)",
    "to_thread": "await ctx.step(…) with a def step, which runs in a thread",
    "run_in_executor": "await ctx.step(…) with a def step, which runs in a thread",
    "time": "ctx.now()",
}
ANYTHING_ELSE = "a @step and await ctx.step(…)"


class LoopGuard:
    """Stands in for the running loop and refuses everything, naming the line and the `ctx` equivalent."""

    def __getattr__(self, name: str) -> Any:
        _refuse(name)

    # asyncio.timeout and current_task() look the loop up in a dictionary before anything else.
    def __hash__(self) -> int:  # noqa: PLE0309
        _refuse("timeout")

    def create_task(self, coroutine: Any, **_options: Any) -> Never:
        """Refuse; the coroutine is closed, or Python would warn that nobody awaited it."""
        coroutine.close()
        _refuse("create_task")


GUARD = LoopGuard()
get_loop: Callable[[], Any] = asyncio.events._get_running_loop
set_loop: Callable[[Any], None] = asyncio.events._set_running_loop


@contextmanager
def guarded() -> Iterator[None]:
    """Let nothing inside use asyncio."""
    loop = get_loop()
    set_loop(GUARD)
    try:
        yield
    finally:
        set_loop(loop)


def is_guarded() -> bool:
    """Whether a workflow is being driven, on this thread, this very moment."""
    return get_loop() is GUARD


def refused_await(asked: object, awaitable: object) -> DeterminismError:
    """The error for a workflow that awaited something that is no operation of its context."""
    instead = INSTEAD["sleep"] if asked is None else ANYTHING_ELSE
    return DeterminismError(
        f"a workflow must await operations of its ctx only, got {asked!r} at {_line_awaited(awaitable)}; use {instead}"
    )


def _refuse(name: str) -> Never:
    function, line = name, "an unknown line"
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename.startswith(ASYNCIO_FOLDER):
        qualified = frame.f_code.co_qualname.split(".")[0]
        function = qualified if qualified in INSTEAD else frame.f_code.co_name
        frame = frame.f_back
    if frame is not None:
        line = _describe(frame.f_code, frame.f_lineno)
    instead = INSTEAD.get(function, INSTEAD.get(name, ANYTHING_ELSE))
    raise DeterminismError(f"a workflow must not use asyncio ({function}) at {line}; use {instead}")


def _line_awaited(awaitable: object) -> str:
    line = "an unknown line"
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is None or frame.f_code.co_filename.startswith(ASYNCIO_FOLDER):
            break
        line = _describe(frame.f_code, frame.f_lineno)
        awaitable = getattr(awaitable, "cr_await", None)
    return line


def _describe(code: CodeType, line: int) -> str:
    return f"{code.co_filename}:{line} in {code.co_name}"
