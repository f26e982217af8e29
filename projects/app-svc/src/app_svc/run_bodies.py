"""What the commands on runs take and answer, beside the run itself."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app_svc.page import STORABLE
from app_svc.run_start import RUN_ID, StartBody
from lib_workflows.reading.queries import RunFilter

BATCH_LIMIT = 500
MOST_TAGS = 10  # of a filter

Tag = Annotated[str, Field(max_length=400, pattern=STORABLE)]

type RunStatus = Literal[
    "queued", "running", "waiting", "cancelling", "completed", "failed", "cancelled", "nondeterministic", "continued"
]


class BatchBody(BaseModel):
    """Runs to start in one commit: all of them, or none."""

    model_config = ConfigDict(extra="forbid")

    runs: list[StartBody] = Field(min_length=1, max_length=BATCH_LIMIT)


class FilterBody(BaseModel):
    """Which runs a bulk command is for."""

    model_config = ConfigDict(extra="forbid")

    status: list[RunStatus] = Field(default_factory=list)
    workflow: str | None = Field(default=None, max_length=128, pattern=STORABLE)
    tag: Tag | Annotated[list[Tag], Field(max_length=MOST_TAGS)] = Field(default_factory=list)
    q: str | None = Field(default=None, max_length=200, pattern=STORABLE)
    since: AwareDatetime | None = None

    def as_filter(self) -> RunFilter:
        """The filter over everybody's runs."""
        tags = [self.tag] if isinstance(self.tag, str) else self.tag
        return RunFilter(statuses=self.status, workflow=self.workflow, tags=tags, text=self.q, since=self.since)


class BulkBody(BaseModel):
    """A command on many runs; `dry_run` only tells which."""

    model_config = ConfigDict(extra="forbid")

    filter: FilterBody
    dry_run: bool = False


class BulkAnswer(BaseModel):
    """Which runs a bulk command matched, changed, or could not change, and whether there are more."""

    matched: int
    changed: list[str]
    refused: dict[str, str]
    more: bool


class CancelBody(BaseModel):
    """Why a run is cancelled."""

    reason: str = Field(default="cancelled", min_length=1, max_length=500)


class ForkBody(BaseModel):
    """From which operation a new run goes its own way, and with which input."""

    model_config = ConfigDict(extra="forbid")

    from_step: str | None = Field(
        default=None, max_length=200, pattern=STORABLE, description="An operation of the history, such as 3"
    )
    input: Any = None
    id: str | None = Field(default=None, pattern=RUN_ID)
