"""Comparing two runs: where the history of one differs from that of the other, operation by operation."""

from collections.abc import Sequence
from dataclasses import dataclass

from lib_events.database import Connection
from lib_workflows.errors import RunNotFound
from lib_workflows.reading.queries import HistoryEntry, RunView, get_history, get_run

COMPARED_OF_RUNS = ("workflow", "version", "status", "input", "output", "error")
COMPARED = ("kind", "name", "status", "input", "output", "error")


@dataclass(frozen=True, slots=True)
class Difference:
    """An operation that only one of two runs has, or that ended differently; `fields` names what differs."""

    operation: str
    one: HistoryEntry | None
    other: HistoryEntry | None
    fields: Sequence[str] = ()


def compare_runs(connection: Connection, one: str, other: str) -> list[Difference]:
    """The differences of two runs in the order of `one`, then what only `other` has; raises `RunNotFound`.

    Times and attempts do not count: they differ in any two runs.
    """
    for run_id in (one, other):
        if get_run(connection, run_id) is None:
            raise RunNotFound(run_id)
    return compare(get_history(connection, one), get_history(connection, other))


def compare_facts(one: RunView, other: RunView) -> tuple[str, ...]:
    """What differs of two runs themselves: workflow, version, status, input, output, error."""
    return tuple(name for name in COMPARED_OF_RUNS if _told(one, name) != _told(other, name))


def compare(one: Sequence[HistoryEntry], other: Sequence[HistoryEntry]) -> list[Difference]:
    """The same of two histories."""
    ours = {entry.operation: entry for entry in one}
    theirs = {entry.operation: entry for entry in other}
    found = []
    for operation in ours | theirs:
        mine, yours = ours.get(operation), theirs.get(operation)
        fields = _differing(mine, yours) if mine is not None and yours is not None else ()
        if mine is None or yours is None or fields:
            found.append(Difference(operation, mine, yours, fields))
    return found


def _differing(one: HistoryEntry, other: HistoryEntry) -> tuple[str, ...]:
    return tuple(name for name in COMPARED if _told(one, name) != _told(other, name))


def _told(entry: HistoryEntry | RunView, name: str) -> object:
    value = getattr(entry, name)
    # Two stacks of the same error need not be alike.
    return (value.type, value.message) if name == "error" and value is not None else value
