"""What the REST of schedules takes and answers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import from_json

from app_svc.page import QUEUE_NAME, STORABLE
from app_svc.run_start import TAG_NAME
from lib_events.clock import EPOCH, to_datetime
from lib_workflows import At, Cron, Every
from lib_workflows.authoring.timing import TIMES_LIMIT, Timing, bounded
from lib_workflows.errors import ScheduleInvalid
from lib_workflows.scheduling.schedule import CatchUp, Overlap, Schedule
from lib_workflows.scheduling.schedules import ScheduledRun

SCHEDULE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
LONGEST_SECONDS = 3.2e9
EXAMPLE: dict[str, Any] = {
    "name": "morning-orders",
    "workflow": "order",
    "input": {"sku": "tea-green", "quantity": 3},
    "cron": "0 6 * * mon-fri",
    "timezone": "Europe/Berlin",
    "overlap": "skip",
}

# What says more about a timing, and about which.
BESIDE: dict[str, tuple[str, ...]] = {
    "timezone": ("cron",),
    "start": ("every_seconds",),
    "since": ("cron", "every_seconds"),
    "until": ("cron", "every_seconds"),
}
RANGE: dict[str, Any] = {"since": "2026-11-20T00:00:00Z", "until": "2026-11-21T00:00:00Z"}

type Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
type Tags = dict[Annotated[str, Field(pattern=TAG_NAME)], Annotated[str, Field(max_length=256, pattern=STORABLE)]]


class TimingBody(BaseModel):
    """When: exactly one of `cron`, `every_seconds` and `times`."""

    model_config = ConfigDict(extra="forbid")

    cron: str | None = Field(
        default=None,
        max_length=256,
        description="Five fields, or an alias such as @daily",
        examples=["0 6 * * mon-fri"],
    )
    timezone: str | None = Field(
        default=None, max_length=64, description="Of `cron`; an IANA name, by default UTC", examples=["Europe/Berlin"]
    )
    every_seconds: float | None = Field(default=None, ge=1, le=LONGEST_SECONDS)
    start: AwareDatetime | None = Field(default=None, description="From when `every_seconds` counts; by default 1970")
    times: list[AwareDatetime] | None = Field(default=None, min_length=1, max_length=TIMES_LIMIT)
    since: AwareDatetime | None = Field(default=None, description="No time of `cron` or `every_seconds` before this")
    until: AwareDatetime | None = Field(default=None, description="None after this; then the schedule is over")

    def timing(self) -> Timing | None:
        """The timing, or None where nothing is said; raises `ScheduleInvalid`."""
        given = [name for name in ("cron", "every_seconds", "times") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ScheduleInvalid(given[1], f"must not be given with {given[0]}; say one of them")
        for name, owners in BESIDE.items():
            if getattr(self, name) is not None and given not in [[owner] for owner in owners]:
                raise ScheduleInvalid(name, f"must be given with {' or '.join(owners)}")
        if self.cron is not None:
            cron = Cron(self.cron, "UTC" if self.timezone is None else self.timezone)
            return bounded(cron, self.since, self.until)
        if self.every_seconds is not None:
            every = Every(timedelta(seconds=self.every_seconds), self.start or EPOCH)
            return bounded(every, self.since, self.until)
        return At(tuple(self.times)) if self.times is not None else None


class ScheduleBody(TimingBody):
    """A schedule to make."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    name: str = Field(pattern=SCHEDULE_NAME)
    workflow: str = Field(max_length=128)
    input: Any = Field(default=None, description="What the workflow's `input_schema` describes")
    queue: str | None = Field(default=None, min_length=1, max_length=128, pattern=QUEUE_NAME)
    tags: Tags = Field(default_factory=dict, max_length=20)
    overlap: Overlap = Field(default="skip", description="What becomes of a time while a run is under way")
    catch_up: CatchUp = Field(default="one", description="Which of several times count that nobody was there for")
    catch_up_window_seconds: Seconds = Field(default=86_400, description="Older times start nothing")
    jitter_seconds: Seconds = Field(default=0, description="Each run starts later by up to so much")
    paused: bool = False
    note: str = Field(default="", max_length=1_000, pattern=STORABLE)
    acts_for_me: bool = Field(
        default=False,
        description="Its runs act for you at other services, as their workflow declares, for 90 days",
    )


class ChangeBody(TimingBody):
    """What to change of a schedule; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"cron": "0 7 * * *", "overlap": "allow"}]}
    )

    workflow: str | None = Field(default=None, max_length=128)
    input: Any = None
    queue: str | None = Field(default=None, min_length=1, max_length=128, pattern=QUEUE_NAME)
    tags: Tags | None = Field(default=None, max_length=20)
    overlap: Overlap | None = None
    catch_up: CatchUp | None = None
    catch_up_window_seconds: Seconds | None = None
    jitter_seconds: Seconds | None = None
    acts_for_me: bool | None = Field(
        default=None,
        description="Its runs act for you from now on, for 90 days, or for nobody; by default as before, where you and "
        "its workflow are still the same",
    )


class PauseBody(BaseModel):
    """Why a schedule is paused."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"note": "stocktaking until Monday"}]})

    note: str = Field(default="", max_length=1_000, pattern=STORABLE)


class BackfillBody(BaseModel):
    """A past range: the times in `since <= time < until` that have no run get one; `dry_run` only tells which."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [RANGE]})

    since: AwareDatetime
    until: AwareDatetime
    dry_run: bool = False


class PreviewDocument(BaseModel):
    """When a timing would be due next."""

    next_times: list[datetime]


class StartedDocument(BaseModel):
    """The runs that were started."""

    runs: list[str]


class BackfillDocument(StartedDocument):
    """The runs that were started; of a dry run none, but the times that would have got one."""

    times: list[datetime] = Field(default_factory=list, description="Of a dry run: the times that have no run")


class ScheduleDocument(BaseModel):
    """A schedule; of `cron`, `every_seconds` and `times` one is set."""

    name: str
    workflow: str
    input: Any = None
    queue: str | None
    tags: dict[str, str]
    cron: str | None = None
    timezone: str | None = None
    every_seconds: float | None = None
    start: datetime | None = None
    times: list[datetime] | None = None
    since: datetime | None = None
    until: datetime | None = None
    overlap: Overlap
    catch_up: CatchUp
    catch_up_window_seconds: float
    jitter_seconds: float
    paused: bool
    note: str
    declared: bool = Field(description="Beside its workflow, in code: what it does is changed there")
    principal: str | None = Field(description="In whose name its runs start")
    principal_name: str | None
    next_at: datetime | None
    acts_until: datetime | None = Field(
        default=None, description="Until then its runs act for whoever it belongs to, at other services"
    )
    waiting_since: datetime | None = Field(description="A time that has come and waits for a run to end")
    fired: int
    skipped: int
    created_at: datetime
    changed_at: datetime


class ScheduledRunDocument(BaseModel):
    """One of the last runs of a schedule; `status` is null when the run is not kept any more."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    kind: str
    due_at: datetime
    started_at: datetime
    status: str | None


class ListedSchedule(ScheduleDocument):
    """A schedule with what it did last."""

    last_runs: list[ScheduledRunDocument]


class ScheduleDetail(ListedSchedule):
    """The same, with what it will do next."""

    next_times: list[datetime]


def describe(schedule: Schedule, acts_until: int | None = None) -> ScheduleDocument:
    """A schedule as the API shows it."""
    return ScheduleDocument.model_validate(_facts(schedule, acts_until))


def describe_in_list(
    schedule: Schedule, last_runs: Sequence[ScheduledRun], acts_until: int | None = None
) -> ListedSchedule:
    """The same, with its last runs."""
    return ListedSchedule.model_validate(_facts(schedule, acts_until) | _runs(last_runs))


def describe_whole(
    schedule: Schedule, next_times: Sequence[datetime], last_runs: Sequence[ScheduledRun], acts_until: int | None = None
) -> ScheduleDetail:
    """The same, with its next times, too."""
    facts = _facts(schedule, acts_until) | _runs(last_runs)
    return ScheduleDetail.model_validate(facts | {"next_times": [*next_times]})


def _runs(last_runs: Sequence[ScheduledRun]) -> dict[str, Any]:
    return {"last_runs": [ScheduledRunDocument.model_validate(run) for run in last_runs]}


def _facts(schedule: Schedule, acts_until: int | None) -> dict[str, Any]:
    plan, principal = schedule.plan, schedule.principal
    return {
        "acts_until": _moment(acts_until),
        "name": schedule.name,
        "workflow": plan.workflow,
        "input": None if plan.input is None else from_json(plan.input),
        "queue": plan.queue,
        "tags": plan.tags,
        **plan.timing.as_json(),
        "overlap": plan.overlap,
        "catch_up": plan.catch_up,
        "catch_up_window_seconds": plan.catch_up_window.total_seconds(),
        "jitter_seconds": plan.jitter.total_seconds(),
        "paused": schedule.paused,
        "note": schedule.note,
        "declared": schedule.declared,
        "principal": principal.subject if principal else None,
        "principal_name": principal.username if principal else None,
        "next_at": _moment(schedule.next_at),
        "waiting_since": _moment(schedule.waiting_at),
        "fired": schedule.fired,
        "skipped": schedule.skipped,
        "created_at": to_datetime(schedule.created_at),
        "changed_at": to_datetime(schedule.changed_at),
    }


def _moment(at: int | None) -> datetime | None:
    return None if at is None else to_datetime(at)
