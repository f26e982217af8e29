"""Code that asks its process to end (`sys.exit()`) fails by that, like by any error: the worker is not its to end.

Let through, it would end the event loop, then the next worker that takes the run over, and so on.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from lib_workflows.errors import ExitRefused

EXITS = (SystemExit, KeyboardInterrupt)


async def awaiting[R](work: Coroutine[Any, Any, R]) -> R:
    """Await `work`; an exit becomes `ExitRefused`."""
    try:
        return await work
    except EXITS as exit_:
        raise ExitRefused(exit_) from exit_


def calling[**P, R](function: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
    """Call `function`; an exit becomes `ExitRefused`."""
    try:
        return function(*args, **options)
    except EXITS as exit_:
        raise ExitRefused(exit_) from exit_
