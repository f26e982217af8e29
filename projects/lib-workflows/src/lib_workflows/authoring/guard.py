"""Keeps asyncio out of workflows: while one is driven, the running loop is a guard that refuses and explains.

What a task, a future or a timer of the event loop does is in no history, so a replay could not repeat it.
`asyncio.sleep`, `gather`, `create_task`, `timeout` and their like all ask for the running loop first.
"""

import asyncio
import asyncio.events
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Never

from lib_workflows.errors import DeterminismError

logger = logging.getLogger(__name__)

MOST_CLEANUPS = 1_000  # that a function may await, one after the other, while it is dropped
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

    def create_task(self, awaitable: Any, **_options: Any) -> Never:
        """Refuse; a coroutine is closed, or Python would warn that nobody awaited it."""
        drop(awaitable)
        _refuse("create_task")


GUARD = LoopGuard()
DROPPING = LoopGuard()  # while a function is dropped, which it cannot help
get_loop: Callable[[], Any] = asyncio.events._get_running_loop
set_loop: Callable[[Any], None] = asyncio.events._set_running_loop


@contextmanager
def guarded(guard: LoopGuard = GUARD) -> Iterator[None]:
    """Let nothing inside use asyncio; its async generators are the workflow's, not the event loop's."""
    loop, hooks = get_loop(), sys.get_asyncgen_hooks()
    set_loop(guard)
    sys.set_asyncgen_hooks(None, leave)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)
        set_loop(loop)


def drop(dropped: object) -> None:
    """Close a coroutine or its like, whatever it does about that; what it still wants to await is not heard."""
    close = getattr(dropped, "close", None)
    if close is None:
        return
    with guarded(DROPPING):
        for _ in range(MOST_CLEANUPS):  # each throws it out of one more: what is not closed cries when it is freed
            with suppress(BaseException):
                close()
                return


def leave(generator: AsyncGenerator[Any, Any]) -> None:
    """Close an async generator that nobody iterates any more, there and then, as a replay does.

    The event loop would do so some time later in a task of its own, which cannot await operations.
    """
    is_driven = get_loop() is GUARD
    closing = generator.aclose()
    with guarded(), suppress(BaseException):
        closing.send(None)
        if is_driven:
            logger.warning(
                "async generator %s was left before its end, so what it awaits in its cleanup does not happen; write: "
                "async with contextlib.aclosing(…)",
                getattr(generator, "__qualname__", generator),
            )
    drop(closing)


def is_guarded() -> bool:
    """Whether a workflow is being driven, on this thread, this very moment."""
    return isinstance(get_loop(), LoopGuard)


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
