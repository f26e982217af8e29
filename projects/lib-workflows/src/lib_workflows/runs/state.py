"""The states of a run and what moves it between them: data, from which the documentation draws its diagram."""

from typing import Final, Literal, get_args

from lib_workflows.errors import CommandRefused

type Status = Literal[
    "queued", "running", "waiting", "cancelling", "completed", "failed", "cancelled", "nondeterministic", "continued"
]
STATUSES: Final[tuple[Status, ...]] = get_args(Status.__value__)
type Move = Literal[
    "claim", "rest", "resume", "cancel", "recall", "complete", "fail", "undone", "park", "retry", "redo", "continue"
]

UNDER_WAY = frozenset(("running", "waiting", "cancelling"))  # somebody has it in memory, or may take it there
TERMINAL = frozenset(("completed", "failed", "cancelled", "continued"))
ENDED = TERMINAL | {"nondeterministic"}  # parked: nothing happens until someone retries or forks it

TRANSITIONS: dict[tuple[str, Move], Status] = {
    ("queued", "claim"): "running",
    ("queued", "cancel"): "cancelled",
    ("queued", "recall"): "cancelling",  # cancelled, too; but it has a past, which may have to be undone
    ("running", "rest"): "waiting",
    ("waiting", "resume"): "running",
    ("running", "cancel"): "cancelling",
    ("waiting", "cancel"): "cancelling",
    ("running", "complete"): "completed",
    ("running", "fail"): "failed",
    ("running", "park"): "nondeterministic",
    ("running", "continue"): "queued",  # its past becomes a run of its own that is `continued`
    ("cancelling", "undone"): "cancelled",
    ("cancelling", "complete"): "completed",  # it caught the cancellation and ended well
    ("cancelling", "fail"): "failed",
    ("cancelling", "park"): "nondeterministic",
    ("failed", "retry"): "queued",
    ("cancelled", "retry"): "queued",
    ("nondeterministic", "retry"): "queued",
    ("completed", "redo"): "queued",  # its parent has undone it, and asks for it again
    ("nondeterministic", "cancel"): "cancelling",  # what its code still asks for like its history is undone
}


def after(status: str, move: Move, *, run_id: str = "") -> Status:
    """The status after `move`; raises `CommandRefused` when there is no such transition."""
    try:
        return TRANSITIONS[status, move]
    except KeyError:
        allowed = [source for source, possible in TRANSITIONS if possible == move]
        raise CommandRefused(run_id, move, status, allowed) from None
