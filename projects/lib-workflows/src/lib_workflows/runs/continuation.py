"""Continuing as new: what a run was so far becomes an ended run of its own, and the run begins again, queued.

The run keeps its id, so that whoever knows it (signals, results, its parent) need not learn another. Names made of
the run and an operation (children, approvals, idempotency keys, chance) are set apart by how many lives were before.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, insert, literal, null, select, update

from lib_events.clock import SystemClock
from lib_events.database import Connection, insert_into
from lib_events.event_log import head
from lib_workflows.errors import LifeOver
from lib_workflows.runs.commands import RUNS_TOPIC, lock_run, reject_updates
from lib_workflows.runs.lifecycle_events import RUN_CONTINUED, Teller
from lib_workflows.runs.record import RECEIVED_KIND, RECEIVED_OPERATION, RunRecord, scope_of
from lib_workflows.tables import attempts, event_waits, heartbeats, history, run_logs, runs
from lib_workflows.values.codec import canonical_json, decode_json, encode_json

type Received = Mapping[tuple[str, str], int]  # (type, match) -> up to where the run has had every event

NOT_KEPT = (
    "owner", "parent", "parent_operation", "parent_life", "idempotency_key", "wake_at", "waiting_for", "slot",
    "debounce_key",
)  # fmt: skip


def continue_as_new(
    connection: Connection,
    run: RunRecord,
    payload: str | None,
    *,
    life: int,
    received: Received,
    waited: Collection[tuple[str, str]],
    now: int | None = None,
) -> str:
    """Set the run's past apart and queue it with the input `payload`; returns the id of the run that holds the past.

    `waited` are those of `received` that it waited for in this life.
    Raises `LifeOver` when it has gone on as new already.
    """
    now = SystemClock().micros() if now is None else now
    run_id = run.id
    row = lock_run(connection, run_id)
    if (row.owner, row.earlier_lives) != (run.owner, run.earlier_lives):
        raise LifeOver(run_id)
    number = _set_apart(connection, run_id, life + 1, now)
    reject_updates(connection, run_id, "the run has continued as new", now, unread=False)
    for table in (attempts, heartbeats, event_waits):
        connection.execute(delete(table).where(table.c.run == run_id))
    # What came in the life that ends is still to be had in the next one, and all that it waited for and has not had.
    began = row.look_back_position if row.life_position is None else row.life_position
    look_back = min([began, *(received[key] for key in waited)])
    _carry(connection, run_id, {key: position for key, position in received.items() if position > look_back}, now)
    values = {
        "input": payload,
        "first_input": row.first_input if row.earlier_lives else row.input,
        "status": "queued",
        "owner": None,
        "wakes": runs.c.wakes + 1,
        "wake_at": now,
        "waiting_for": None,
        "debounce_key": None,
        "started_at": None,
        "earlier_lives": number,
        "look_back_position": look_back,
        "life_position": head(connection).position,
    }
    connection.execute(update(runs).where(runs.c.id == run_id).values(**values))
    past = past_id(run_id, number)
    connection.publish(Teller(row, connection.source, life).tell_end(RUN_CONTINUED, now, row, past=past))
    connection.notify(RUNS_TOPIC)
    return past


def past_id(run_id: str, number: int) -> str:
    """The id under which a run's past is kept as its life of that number begins."""
    return f"{run_id}{scope_of(number)}"


def _set_apart(connection: Connection, run_id: str, number: int, now: int) -> int:
    """Make the past a run of its own; returns the number of the life that comes, which its id and names have."""
    changed = dict.fromkeys(NOT_KEPT, null()) | {"status": literal("continued"), "ended_at": literal(now)}
    while not _copy_row(connection, run_id, past_id(run_id, number), changed):
        number += 1  # somebody has chosen that very id for another run, whose keys are made of it
    past = past_id(run_id, number)
    for table in (history, run_logs):
        connection.execute(update(table).where(table.c.run == run_id).values(run=past))
    connection.execute(update(runs).where(runs.c.parent == run_id).values(parent=past))
    return number


def _copy_row(connection: Connection, run_id: str, copy: str, changed: Mapping[str, Any]) -> bool:
    names = [column.name for column in runs.columns]
    columns = [literal(copy) if name == "id" else changed.get(name, runs.c[name]) for name in names]
    rows = select(*columns).where(runs.c.id == run_id)
    copied = insert_into(connection, runs).from_select(names, rows).on_conflict_do_nothing()
    return connection.execute(copied).rowcount == 1


def _carry(connection: Connection, run_id: str, received: Received, now: int) -> None:
    """A run receives each event at most once per (type, match): also across its lives."""
    if not received:
        return
    told = encode_json([[name, match, position] for (name, match), position in received.items()])
    row = {"run": run_id, "position": 1, "operation": RECEIVED_OPERATION, "kind": RECEIVED_KIND}
    row |= {"name": RECEIVED_KIND, "status": "completed", "attempt": 1, "started_at": now, "ended_at": now}
    connection.execute(insert(history).values(**row, meta=told, voided=0))


def carried(meta: str | None) -> dict[tuple[str, str], int]:
    """What `_carry` has written."""
    told = decode_json(meta or "[]")
    return {(name, canonical_json(decode_json(match))): position for name, match, position in told}
