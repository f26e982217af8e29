"""A new run before it is one: its row, who tells of it, and what tells that it has begun."""

from typing import NamedTuple

from lib_events.event import EncodedEvent
from lib_events.statement import Write
from lib_workflows.runs.lifecycle_events import RUN_QUEUED, RUN_STARTED, Teller
from lib_workflows.runs.record import RunRecord, new_row
from lib_workflows.statements import INSERT_RUN


class Birth(NamedTuple):
    """A new run and who tells of it."""

    record: RunRecord
    teller: Teller

    @classmethod
    def of(cls, record: RunRecord, source: str) -> "Birth":
        """The birth of a run in the database of the service `source`."""
        return cls(record, Teller(record, source))

    def write(self) -> Write:
        """Its row."""
        return Write(INSERT_RUN, new_row(self.record))

    def event(self) -> EncodedEvent:
        """What tells that it has begun, or waits to be taken."""
        return self.teller.tell(RUN_STARTED if self.record.owner else RUN_QUEUED, self.record.created_at)
