"""What a start may say of its run beside the input: the same words for `engine.start`, `ctx.child` and `ctx.start`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, get_args

from lib_workflows.authoring.queue import check_queue_key, check_queue_name
from lib_workflows.errors import DefinitionError
from lib_workflows.values.durations import check_moment, check_seconds
from lib_workflows.values.identifiers import check_plain_id
from lib_workflows.values.tags import check_tags

LOWEST_PRIORITY = -1_000_000

# What a start means whose id (or idempotency key) a run already has: that run if workflow and input are the same, that
# run if the workflow is the same, whatever its input; or a conflict in any case.
type OnConflict = Literal["same", "existing", "fail"]

ON_CONFLICT = get_args(OnConflict.__value__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What a run that another one starts has of its own; None: as its workflow says."""

    id: str | None = None
    on_conflict: OnConflict = "same"
    queue: str | None = None
    queue_key: str | None = None
    priority: int = 0
    delay_seconds: float = 0.0
    deadline_at: int | None = None  # micros
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        id: str | None,  # noqa: A002 - the word of `engine.start`
        on_conflict: OnConflict = "same",
        queue: str | None,
        queue_key: str | None,
        priority: int,
        delay: timedelta | None,
        deadline: datetime | None,
        tags: Mapping[str, str] | None,
    ) -> "StartOptions":
        """Check what is given; raises `DefinitionError` and its kin."""
        return cls(
            id=None if id is None else check_plain_id(id),
            on_conflict=check_on_conflict(on_conflict),
            queue=None if queue is None else check_queue_name(queue),
            queue_key=check_queue_key(queue_key),
            priority=check_priority(priority),
            delay_seconds=0.0 if delay is None else check_seconds(delay, "delay"),
            deadline_at=None if deadline is None else check_moment(deadline, "deadline"),
            tags=check_tags(tags) if tags else {},
        )


def check_priority(priority: int) -> int:
    """Return the priority of a run that is started; raises `DefinitionError`."""
    if type(priority) is not int or not LOWEST_PRIORITY <= priority <= -LOWEST_PRIORITY:
        told = f"priority must be a whole number, {LOWEST_PRIORITY} to {-LOWEST_PRIORITY}, got {priority!r:.100}"
        raise DefinitionError(told)
    return priority


def check_on_conflict(on_conflict: OnConflict) -> OnConflict:
    """Return what a start means whose id is taken; raises `DefinitionError`."""
    if on_conflict not in ON_CONFLICT:
        raise DefinitionError(f"on_conflict must be one of {', '.join(ON_CONFLICT)}, got {on_conflict!r:.100}")
    return on_conflict


AS_ITS_WORKFLOW_SAYS = StartOptions()
