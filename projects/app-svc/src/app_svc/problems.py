"""What errors of the libraries are to a client: one map, for REST and for agents."""

from typing import Final

from lib_events import problem
from lib_events.database import UNAVAILABLE
from lib_events.problem import Problem
from lib_workflows.errors import EngineStopped, PayloadTooLarge
from lib_workflows.paging import PageCursorInvalid

NOT_NOW: Final = (*UNAVAILABLE, EngineStopped)


def problem_of(error: Exception) -> Problem:
    """The problem that a client is told of `error`."""
    match error:
        case PageCursorInvalid():
            return Problem(422, "invalid-cursor", "The list cannot go on from there", str(error))
        case PayloadTooLarge(what=what):
            return Problem(413, f"{what}-too-large", f"The {what} is too large", str(error))
        case _ if isinstance(error, NOT_NOW):
            return problem.not_now(error)
    return problem.problem_of(error)
