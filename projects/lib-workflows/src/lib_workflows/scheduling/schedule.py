"""What a schedule is: what it starts and when, checked; and its row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Literal, get_args

from lib_events.clock import MICROSECOND, to_datetime
from lib_workflows.authoring.messages import Principal
from lib_workflows.authoring.timing import TIMINGS, Timing, read_timing
from lib_workflows.errors import DefinitionError, ScheduleInvalid, TagsInvalid, TextInvalid
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.values.durations import check_seconds
from lib_workflows.values.identifiers import SCHEDULED_PREFIX
from lib_workflows.values.tags import check_tags
from lib_workflows.values.texts import check_name

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_TAG, TIME_TAG = "schedule", "scheduled_for"
SHORTEST_WINDOW = timedelta(seconds=10)
LONGEST_JITTER = timedelta(days=1)

# What becomes of a time that comes while a run of the schedule is under way: nothing; a run beside it; a run after it
# (the first of such times waits); or a run after it, and it is cancelled (the last of such times waits).
type Overlap = Literal["skip", "allow", "buffer_one", "cancel_other"]
# What becomes of several times that have passed while nobody was there: the last one counts, or each does.
type CatchUp = Literal["one", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a schedule starts, and when; raises `ScheduleInvalid`.

    Times older than `catch_up_window` when somebody is there again start nothing. `jitter` starts each run later by
    up to so much, always by the same for the same time.
    """

    workflow: str
    timing: Timing
    input: str | None = None  # JSON text, checked
    queue: str | None = None  # None: the workflow's
    tags: Mapping[str, str] = field(default_factory=dict)
    overlap: Overlap = "skip"
    catch_up: CatchUp = "one"
    catch_up_window: timedelta = timedelta(days=1)
    jitter: timedelta = timedelta()

    def __post_init__(self) -> None:
        if not isinstance(self.timing, TIMINGS):
            raise ScheduleInvalid("timing", f"must be Cron(…), Every(…), At(…) or Between(…), got {self.timing!r:.80}")
        for name, choices in (("overlap", Overlap), ("catch_up", CatchUp)):
            if getattr(self, name) not in (known := get_args(choices.__value__)):
                raise ScheduleInvalid(name, f"must be one of {', '.join(known)}, got {getattr(self, name)!r:.80}")
        _check_duration("catch_up_window", self.catch_up_window, shortest=SHORTEST_WINDOW)
        _check_duration("jitter", self.jitter, longest=LONGEST_JITTER)
        self._check_texts()

    def _check_texts(self) -> None:
        try:
            if self.queue is not None:
                check_name(self.queue, "queue")
            tags = check_tags(self.tags)
        except (TextInvalid, TagsInvalid) as error:
            where = "queue" if isinstance(error, TextInvalid) else "tags"
            raise ScheduleInvalid(where, str(error).removeprefix(f"{where} ")) from error
        if taken := {NAME_TAG, TIME_TAG}.intersection(tags):
            raise ScheduleInvalid("tags", f"must leave {', '.join(sorted(taken))} to the schedule")

    def row(self) -> dict[str, Any]:
        """As `schedules` keeps it."""
        return {
            "workflow": self.workflow,
            "input": self.input,
            "queue": self.queue,
            "tags": encode_json(dict(self.tags)) if self.tags else None,
            "timing": encode_json(self.timing.as_json()),
            "overlap": self.overlap,
            "catch_up": self.catch_up,
            "catch_up_micros": self.catch_up_window // MICROSECOND,
            "jitter_micros": self.jitter // MICROSECOND,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of `schedules`; times are micros."""

    name: str
    plan: Plan
    paused: bool
    note: str
    declared: bool
    principal: Principal | None
    revision: int
    next_at: int | None
    fire_at: int | None
    waiting_at: int | None
    fired: int
    skipped: int
    created_at: int
    changed_at: int

    @classmethod
    def of(cls, row: Any) -> "Schedule":
        """From a row."""
        plan = Plan(
            workflow=row.workflow,
            timing=read_timing(decode_json(row.timing)),
            input=row.input,
            queue=row.queue,
            tags=decode_json(row.tags) if row.tags else {},
            overlap=row.overlap,
            catch_up=row.catch_up,
            catch_up_window=row.catch_up_micros * MICROSECOND,
            jitter=row.jitter_micros * MICROSECOND,
        )
        principal = Principal(row.principal, row.principal_name) if row.principal else None
        own = {name: getattr(row, name) for name in cls.__slots__ if name not in ("plan", "principal")}
        return cls(plan=plan, principal=principal, **own)

    def run_id(self, due_at: int) -> str:
        """The one run of a time: whoever starts it, and however often, it is the same."""
        return f"{SCHEDULED_PREFIX}{self.name}~{compact(due_at)}"

    def tags(self, due_at: int) -> dict[str, str]:
        """By which its runs are found, and know which time they are for."""
        return {**self.plan.tags, NAME_TAG: self.name, TIME_TAG: to_datetime(due_at).isoformat()}

    def fires_at(self, due_at: int) -> int:
        """When to start the run of a time: a jitter later that is the same on every worker."""
        longest = self.plan.jitter // MICROSECOND
        digest = blake2b(f"{self.name}\0{due_at}".encode(), digest_size=8).digest()
        return due_at + int.from_bytes(digest) % (longest + 1)

    def moved(self, next_at: int | None) -> dict[str, int | None]:
        """The columns that say what it waits for."""
        return {"next_at": next_at, "fire_at": None if next_at is None else self.fires_at(next_at)}


def check_schedule_name(name: str) -> str:
    """Return the name; raises `ScheduleInvalid`."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ScheduleInvalid("name", f"must match {NAME.pattern}, got {name!r:.80}")
    return name


def compact(at: int) -> str:
    """A time as a part of an id: 20261125T060000Z."""
    moment = to_datetime(at)
    return f"{moment:%Y%m%dT%H%M%S}" + (f".{moment.microsecond:06d}Z" if moment.microsecond else "Z")


def _check_duration(
    what: str, duration: timedelta, *, shortest: timedelta = timedelta(), longest: timedelta | None = None
) -> None:
    try:
        check_seconds(duration, what)
    except DefinitionError as error:
        raise ScheduleInvalid(what, str(error).removeprefix(f"{what} ")) from error
    if not isinstance(duration, timedelta):
        raise ScheduleInvalid(what, f"must be a timedelta, got {duration!r:.100}; write timedelta(seconds=…)")
    if duration < shortest or (longest is not None and duration > longest):
        most = "" if longest is None else f" and at most {longest.total_seconds():g} s"
        raise ScheduleInvalid(what, f"must be at least {shortest.total_seconds():g} s{most}, got {duration}")
