"""Code that asks its process to end (`sys.exit()`) fails by that, like by any error: the worker is not its to end.

Let through, it would end the event loop, then the next worker that takes the run over, and so on. What else is no
`Exception` (`asyncio.CancelledError`, `GeneratorExit`) would be taken for the worker's own by whoever awaits the call.
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
    """Call `function`; what it raises and is no `Exception` becomes `ExitRefused`."""
    try:
        return function(*args, **options)
    except Exception:
        raise
    except BaseException as exit_:
        raise ExitRefused(exit_) from exit_
