"""A run goes on from an earlier place in its history: the same one when it is retried, a new one when it is forked."""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, insert, literal, select, update

from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_workflows.authoring.messages import Principal
from lib_workflows.authoring.queue import key_of
from lib_workflows.errors import OperationNotFound
from lib_workflows.runs.commands import RUNS_TOPIC, StartRequest, lock_run, reject_updates, start
from lib_workflows.runs.lifecycle_events import RUN_QUEUED, Teller
from lib_workflows.runs.record import (
    FORK_KIND,
    GOT_OVER_KIND,
    RECEIVED_KIND,
    RETRY_KIND,
    RETRY_OPERATION,
    UNDO_SUFFIX,
    UNDOING_KIND,
    name_of_life,
)
from lib_workflows.runs.state import after
from lib_workflows.tables import attempts, heartbeats, history, messages, queues, runs, views
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.values.failure import was_stopped

LEAVES_THE_PAST = encode_json({"undo": "its own"})  # in the row of a fork: what is shared, the other run undoes
IS_VIEW = history.c.kind == "view"
PASSED = ("cancel", "update", "event")  # messages that mean nothing any more to a run that has ended and begins again


def retry(connection: Connection, run_id: str, now: int | None = None) -> None:
    """Run a failed, cancelled or parked run again: what succeeded before its failure is kept.

    Rows from the last failure on are set aside, and from the first undone operation on if it was undone; a parked
    run keeps its whole history and is tried against the code of today. A failure that the run had got over, and after
    which it did something that is done once, is not why it failed: all is kept, and the code goes on from there. Of
    what was sent to a run that has ended only signals are kept, also those taken by what is set aside; a deadline that
    has passed does not count any more: whoever retries it knows that it is late. One that its workflow declares counts
    anew.
    """
    now = SystemClock().micros() if now is None else now
    row = lock_run(connection, run_id)
    status, tags = after(row.status, "retry", run_id=run_id), row.tags
    if row.status != "nondeterministic":
        tags = _leave_behind(connection, row, _cut(connection, run_id), now)
    _queue_again(connection, row, status, now, tags=tags)


def redo(connection: Connection, run_id: str, now: int) -> None:
    """Run a completed run once more, from its beginning: its parent has undone it, and asks for it again."""
    row = lock_run(connection, run_id)
    status = after(row.status, "redo", run_id=run_id)
    tags = _leave_behind(connection, row, 0, now)
    payload = row.first_input if row.earlier_lives else row.input
    _queue_again(connection, row, status, now, tags=tags, input=payload)


def _leave_behind(connection: Connection, run: Any, cut: int | None, now: int) -> str | None:
    """Set aside what comes from `cut` on and what was sent to a run that has ended; returns the tags as they were."""
    tags = _set_aside(connection, run, cut, now)
    reject_updates(connection, run.id, f"the run has {run.status}", now)
    came = and_(messages.c.run == run.id, messages.c.kind.in_(PASSED))
    connection.execute(delete(messages).where(came))
    return tags


def _queue_again(connection: Connection, row: Any, status: str, now: int, **values: Any) -> None:
    again = values | {"status": status, "owner": None, "wakes": runs.c.wakes + 1, "wake_at": now}
    again |= dict.fromkeys(("ended_at", "error", "output", "slot", "debounce_key"))
    if row.deadline_micros is not None:
        again["deadline_at"] = now + row.deadline_micros
    elif row.deadline_at is not None and row.deadline_at <= now:
        again["deadline_at"] = None
    connection.execute(update(runs).where(runs.c.id == row.id).values(**again))
    connection.publish(Teller(row, connection.source).tell(RUN_QUEUED, now))
    connection.notify(RUNS_TOPIC)


def _cut(connection: Connection, run_id: str) -> int | None:
    mine = _kept(run_id)
    rows = connection.execute(
        select(history.c.position, history.c.operation, history.c.kind, history.c.status, history.c.meta)
        .where(mine)
        .order_by(history.c.position)
    ).all()
    undone = {row.operation.removesuffix(UNDO_SUFFIX) for row in rows if row.kind == "undo"}
    # What failed before a run was cancelled is not why it ended, unless the run had not got over it yet.
    went_on = any(row.kind == "cancel" and not decode_json(row.meta or "{}").get("failing") for row in rows)
    got_over = max((row.position for row in rows if row.kind == GOT_OVER_KIND), default=0)
    failed = [] if went_on else [row.position for row in rows if _has_failed(row) and row.position > got_over]
    cuts = [row.position for row in rows if row.operation in undone or row.kind in ("cancel", "undo", UNDOING_KIND)]
    return min([*cuts, *failed[-1:]], default=None)


def _kept(run_id: str) -> ColumnElement[bool]:
    """The rows of a run that no retry has set aside."""
    return and_(history.c.run == run_id, history.c.voided == 0)


def _undone(connection: Connection, run_id: str) -> list[int]:
    """The positions of what the run has undone, or tried to."""
    mine = _kept(run_id)
    undos = connection.scalars(select(history.c.operation).where(mine, history.c.kind == "undo")).all()
    undone = {operation.removesuffix(UNDO_SUFFIX) for operation in undos}
    rows = connection.execute(select(history.c.position, history.c.operation).where(mine)).all() if undone else ()
    return [row.position for row in rows if row.operation in undone]


def _has_failed(row: Any) -> bool:
    """Whether that may be why the run failed: not what failed because it was asked to stop, but a block out of time."""
    if row.kind == "timeout":
        return True
    return row.status == "failed" and row.kind != "undo" and not was_stopped(row.meta)


def _set_aside(connection: Connection, run: Any, cut: int | None, now: int) -> str | None:
    """Set aside the rows from `cut` on, and say where and when that was; returns the tags as they were there."""
    # What is done again begins anew, with all its attempts: its progress of before must not let it skip anything.
    for table in (heartbeats, attempts):
        connection.execute(delete(table).where(table.c.run == run.id))
    tags = run.tags if cut is None else _tags_at(connection, run, cut)
    origin = None
    if cut is not None:
        origin = _origin_at(connection, run.id, cut)
        mine = and_(history.c.run == run.id, history.c.voided == 0, history.c.position >= cut)
        _give_signals(connection, run.id, mine, now)
        _take_views_back(connection, run.id, mine, cut)
        connection.execute(update(history).where(mine).values(voided=now))
    last = connection.scalar(select(func.max(history.c.position)).where(history.c.run == run.id)) or 0
    if origin is not None:  # what is kept is still of the run that was forked
        last += 1
        _say_of_fork(connection, run.id, last, origin, now)
    row = {"run": run.id, "position": last + 1, "operation": RETRY_OPERATION, "kind": RETRY_KIND}
    row |= {"name": RETRY_KIND, "status": "completed", "attempt": 1, "started_at": now, "ended_at": now}
    connection.execute(insert(history).values(**row, voided=now))
    return tags


def _give_signals(connection: Connection, run_id: str, where: Any, now: int) -> None:
    """Put the signals that were taken there into the inbox, before all that nobody has taken: who sent them knows that
    they have arrived, and will not send them again."""
    taken = and_(where, history.c.kind == "wait_signal", history.c.status == "completed")
    columns = (history.c.name, history.c.output)
    rows = connection.execute(select(*columns).where(taken).order_by(history.c.position)).all()
    if rows:
        lowest = connection.scalar(select(func.min(messages.c.number)).where(messages.c.run == run_id))
        before = min(lowest or 0, 0)  # what was sent has numbers from 1 on
        signals = [{"number": before - len(rows) + n, "name": r.name, "payload": r.output} for n, r in enumerate(rows)]
        both = {"run": run_id, "kind": "signal", "sent_at": now}
        connection.execute(insert(messages), [both | signal for signal in signals])


def _tags_at(connection: Connection, run: Any, position: int) -> str | None:
    """The tags that a run had before what its history says from `position` on."""
    later = and_(history.c.run == run.id, history.c.voided == 0, history.c.position >= position)
    changed = and_(later, history.c.kind == "tags", history.c.status == "completed")
    meta = connection.scalar(select(history.c.meta).where(changed).order_by(history.c.position).limit(1))
    tags: str | None = run.tags if meta is None else decode_json(meta)["before"]
    return tags


def fork(
    connection: Connection,
    run_id: str,
    *,
    from_operation: str | None = None,
    input: str | None = None,  # noqa: A002 - the word of the API
    new_id: str | None = None,
    principal: Principal | None = None,
    now: int | None = None,
) -> str:
    """Start a new run that has the history of `run_id` before `from_operation` (default: none of it).

    What was undone is not done any more: the fork has the history before the first such operation at most, and the
    signals that were taken from there on.
    """
    now = SystemClock().micros() if now is None else now
    row = lock_run(connection, run_id)
    until = 0 if from_operation is None else _position_of(connection, run_id, from_operation)
    cut = min([until, *_undone(connection, run_id)])
    tags = _tags_at(connection, row, cut)
    request = StartRequest(
        workflow=row.workflow,
        version=row.version,
        queue=row.queue,
        input=row.input if input is None else input,
        id=new_id,
        priority=row.priority,
        deadline_micros=row.deadline_micros,
        tags=decode_json(tags) if tags else {},
        principal=principal or (Principal(row.principal, row.principal_name) if row.principal else None),
        look_back_position=row.look_back_position,
        queue_key=row.queue_key if input is None else _key_of_fork(connection, row, input),
    )
    forked, created = start(connection, request, now)
    if created:
        connection.execute(update(runs).where(runs.c.id == forked).values(forked_from=run_id))
        _copy_history(connection, row, forked, cut, now)
        anew = and_(_kept(run_id), history.c.position >= cut, history.c.position < until)
        _give_signals(connection, forked, anew, now)
    return forked


def _key_of_fork(connection: Connection, row: Any, payload: str) -> str | None:
    """With whom a fork with another input takes turns: by that, unless whoever started the run has said with whom."""
    field = connection.scalar(select(queues.c.key).where(queues.c.name == row.queue))
    key: str | None = row.queue_key
    return key_of(field, payload) if key == key_of(field, row.input) else key


def _position_of(connection: Connection, run_id: str, operation: str) -> int:
    here = and_(history.c.run == run_id, history.c.voided == 0, history.c.operation == operation)
    position: int | None = connection.scalar(select(history.c.position).where(here))
    if position is None:
        raise OperationNotFound(run_id, operation)
    return position


def _copy_history(connection: Connection, run: Any, forked: str, cut: int, now: int) -> None:
    """Copy the history before `cut`, say whose it was, and copy the views as they were there.

    What lives before this one have received is received, wherever in this one the fork begins.
    """
    run_id = run.id
    before = and_(_kept(run_id), history.c.position < cut)
    if _copy(connection, forked, before):
        origin = _origin_at(connection, run_id, cut) or Origin(
            name_of_life(run_id, run.status, run.earlier_lives), run.started_at or run.created_at
        )
        origin = origin._replace(meta=LEAVES_THE_PAST)
        _say_of_fork(connection, forked, cut, origin, now)
    else:
        _copy(connection, forked, and_(_kept(run_id), history.c.kind == RECEIVED_KIND))
    _copy_views(connection, run_id, forked, before)


def _copy_views(connection: Connection, run_id: str, forked: str, before: ColumnElement[bool]) -> None:
    """Copy the views that were set there, and those of lives before this one that this one has never set."""
    _show(connection, forked, before)
    set_here = select(history.c.name).where(history.c.run == run_id, IS_VIEW)
    columns = [literal(forked) if column.name == "run" else column for column in views.columns]
    earlier = select(*columns).where(views.c.run == run_id, views.c.name.not_in(set_here))
    connection.execute(insert(views).from_select([column.name for column in views.columns], earlier))


def _take_views_back(connection: Connection, run_id: str, where: ColumnElement[bool], cut: int) -> None:
    """Let the views that were set there be what they were before; one that was not set before is not there."""
    names = select(history.c.name).where(where, IS_VIEW).correlate(None)
    connection.execute(delete(views).where(views.c.run == run_id, views.c.name.in_(names)))
    _show(connection, run_id, and_(_kept(run_id), history.c.position < cut, history.c.name.in_(names)))


def _show(connection: Connection, run_id: str, where: ColumnElement[bool]) -> None:
    """Let a run have the views that were set there."""
    last = select(func.max(history.c.position)).where(where, IS_VIEW).group_by(history.c.name).correlate(None)
    columns = literal(run_id), history.c.name, history.c.input, history.c.position, history.c.ended_at
    shown = select(*columns).where(where, history.c.position.in_(last))
    connection.execute(insert(views).from_select(["run", "name", "value", "position", "updated_at"], shown))


def _copy(connection: Connection, forked: str, where: ColumnElement[bool]) -> int:
    names = [column.name for column in history.columns]
    columns = [literal(forked) if name == "run" else history.c[name] for name in names]
    return connection.execute(insert(history).from_select(names, select(*columns).where(where))).rowcount


class Origin(NamedTuple):
    """The run of whose history a fork has a part."""

    name: str  # also of its life
    began_at: int
    meta: str | None = None  # of the row that says so


def _origin_at(connection: Connection, run_id: str, position: int) -> Origin | None:
    """Whose the history of a run is before `position`, if that is not its own."""
    behind = and_(history.c.run == run_id, history.c.voided == 0, history.c.position >= position)
    query = select(history.c.name, history.c.started_at, history.c.meta).where(behind, history.c.kind == FORK_KIND)
    row = connection.execute(query.order_by(history.c.position).limit(1)).one_or_none()
    return None if row is None else Origin(*tuple(row))


def _say_of_fork(connection: Connection, run_id: str, position: int, origin: Origin, now: int) -> None:
    """Write the row that says that what comes before it was done by `origin`."""
    row = {"run": run_id, "position": position, "operation": f"{FORK_KIND}:{position}", "kind": FORK_KIND}
    row |= {"name": origin.name, "status": "completed", "attempt": 1, "started_at": origin.began_at, "ended_at": now}
    connection.execute(insert(history).values(**row, meta=origin.meta, voided=0))
