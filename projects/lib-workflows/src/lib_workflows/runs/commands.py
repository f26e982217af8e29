"""What is done to runs from outside: each command is one transaction function, its events inside.

A command that concerns a run locks its row first, by updating it; whoever has the run in memory is woken
after the commit and asks the database what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, case, func, insert, or_, select, text, update

from lib_events.clock import SystemClock
from lib_events.database import Connection, insert_into
from lib_events.event import Cause
from lib_events.event_log import START_ROWS, committed_position
from lib_workflows.authoring.messages import Principal
from lib_workflows.authoring.start_options import OnConflict
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.errors import (
    ApprovalDecided,
    ApprovalNotFound,
    CommandRefused,
    RunConflict,
    RunNotFound,
)
from lib_workflows.runs.lifecycle_events import (
    APPROVAL_DECIDED,
    APPROVAL_EXPIRED,
    RUN_CANCELLED,
    RUN_QUEUED,
    RUN_STARTED,
    Teller,
)
from lib_workflows.runs.record import (
    NEW_COLUMNS,
    RECEIVED_KIND,
    RunRecord,
    new_row,
)
from lib_workflows.runs.state import TERMINAL, after
from lib_workflows.tables import (
    DEBOUNCED,
    PRINCIPAL,
    approvals,
    history,
    messages,
    pruned_runs,
    runs,
    sent_signals,
    updates,
)
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.values.failure import cancelled_record, encode_record
from lib_workflows.values.identifiers import time_ordered_id

RUNS_TOPIC = "runs"  # something happened that the worker holding a run must hear
ENDED_TOPIC = "runs-ended"  # a run ended or an update was answered
PARKED = "parked"  # of a cancellation: whoever asked for it knew that the code does not fit


@dataclass(slots=True, kw_only=True)
class StartRequest:
    """Everything that is fixed about a run at its start; not frozen, for that would triple what making one costs."""

    workflow: str
    version: int
    queue: str
    input: str | None = None  # JSON text, checked
    id: str | None = None
    priority: int = 0
    run_at: int | None = None  # micros; None: now
    deadline_at: int | None = None
    deadline_micros: int | None = None  # after its beginning, where no `deadline_at` is given
    tags: Mapping[str, str] = field(default_factory=dict)
    principal: Principal | None = None
    idempotency_key: str | None = None
    cause: Cause = field(default_factory=Cause)
    parent: str | None = None
    parent_operation: str | None = None
    parent_life: int | None = None  # of its parent, where its id does not say which
    look_back_position: int | None = None  # None: the log's position now
    depth: int = 0
    queue_key: str | None = None
    debounce_key: str | None = None
    debounce_until: int | None = None  # micros
    on_conflict: OnConflict = "same"

    @classmethod
    def of(
        cls,
        workflow: AnyWorkflow,
        payload: str | None,
        *,
        queue: str | None = None,
        queue_key: str | None = None,
        **said: Any,
    ) -> "StartRequest":
        """A start of `workflow`: what that says of its runs holds where the start itself says nothing."""
        queue = queue or workflow.queue
        return cls(
            workflow=workflow.name,
            version=workflow.version,
            queue=queue,
            queue_key=queue_key or workflow.key_in(queue, payload),
            deadline_micros=workflow.deadline_micros,
            input=payload,
            **said,
        )

    @property
    def is_plain(self) -> bool:
        """Whether it means a run that there cannot be yet."""
        return self.id is None and self.idempotency_key is None and self.debounce_key is None


def start(
    connection: Connection, request: StartRequest, now: int | None = None, owner: str | None = None
) -> tuple[str, bool]:
    """Queue a run, or begin it in the memory of the worker `owner`; returns its id and whether it is new.

    The same id (or idempotency key of the principal), workflow and input mean the same run, anything else under
    them raises `RunConflict`, unless `on_conflict` says otherwise.
    """
    now = SystemClock().micros() if now is None else now
    run = new_run(request, now, owner)
    position = request.look_back_position
    if position is None:
        position = committed_position(connection, START_ROWS)
    row = _row_of(run, request, position)
    if request.debounce_key is not None:
        return _start_debounced(connection, request, run, row)
    while connection.execute(_insert_new(connection).values(**row)).rowcount == 0:
        existing = _existing(connection, request, row)
        if existing is not None:  # else it was pruned in this very moment
            return existing, False
    connection.publish(Teller(run, connection.source).tell(RUN_STARTED if owner else RUN_QUEUED, now))
    if owner is None:
        connection.notify(RUNS_TOPIC)
    return run.id, True


def _start_debounced(
    connection: Connection, request: StartRequest, run: RunRecord, row: dict[str, Any]
) -> tuple[str, bool]:
    """Queue a run, or let the one of its key that has not begun begin later, and with this input."""
    new = insert_into(connection, runs)
    row |= {"debounce_key": request.debounce_key, "debounce_until": request.debounce_until}
    latest = new.excluded
    too_late = latest.wake_at > runs.c.debounce_until
    names = ("version", "queue", "queue_key", "priority", "input", "tags", "deadline_at", "deadline_micros")
    replaced: dict[str, Any] = {name: latest[name] for name in names}
    replaced["wake_at"] = case((too_late, runs.c.debounce_until), else_=latest.wake_at)
    upsert = new.values(**row).on_conflict_do_update(
        index_elements=[runs.c.workflow, PRINCIPAL, runs.c.debounce_key], index_where=text(DEBOUNCED), set_=replaced
    )
    run_id: str = connection.execute(upsert.returning(runs.c.id)).scalar_one()
    if run_id == run.id:
        connection.publish(Teller(run, connection.source).tell(RUN_QUEUED, run.created_at))
    connection.notify(RUNS_TOPIC)
    return run_id, run_id == run.id


def start_new(connection: Connection, requests: Sequence[StartRequest], now: int) -> None:
    """Queue a run for each request that looks back to its own position; one whose id is taken has begun before."""
    if not requests:
        return
    queued = {run.id: run for run in (new_run(request, now) for request in requests)}
    rows = [
        _row_of(run, request, request.look_back_position or 0)
        for run, request in zip(queued.values(), requests, strict=True)
    ]
    created = connection.execute(_insert_new(connection).returning(runs.c.id), rows).scalars().all()
    connection.publish(*(Teller(queued[run_id], connection.source).tell(RUN_QUEUED, now) for run_id in created))
    connection.notify(RUNS_TOPIC)


def _insert_new(connection: Connection) -> Any:
    return insert_into(connection, runs).on_conflict_do_nothing()


def _row_of(run: RunRecord, request: StartRequest, position: int) -> dict[str, Any]:
    row = dict(zip(NEW_COLUMNS, new_row(run), strict=True))
    beside = {"idempotency_key": request.idempotency_key, "parent_life": run.parent_life, "wakes": 0}
    return row | beside | {"look_back_position": position}


def new_run(request: StartRequest, now: int, owner: str | None = None) -> RunRecord:
    """A run that is queued, or that `owner` begins at once."""
    run_id = request.id or time_ordered_id(now)
    cause, principal = request.cause, request.principal
    deadline_at, deadline_micros = request.deadline_at, None
    if deadline_at is None and request.deadline_micros is not None:
        deadline_micros = request.deadline_micros
        deadline_at = (now if request.run_at is None else request.run_at) + deadline_micros
    return RunRecord(
        id=run_id,
        workflow=request.workflow,
        version=request.version,
        queue=request.queue,
        priority=request.priority,
        status="running" if owner else "queued",
        owner=owner,
        input=request.input,
        principal=principal.subject if principal else cause.principal,
        principal_name=principal.username if principal else None,
        tags=encode_json(dict(request.tags)) if request.tags else None,
        correlation_id=cause.correlation_id or run_id,
        causation_id=cause.causation_id,
        traceparent=cause.traceparent,
        parent=request.parent,
        parent_operation=request.parent_operation,
        parent_life=request.parent_life,
        depth=request.depth,
        queue_key=request.queue_key,
        wake_at=None if owner else now if request.run_at is None else request.run_at,
        deadline_at=deadline_at,
        deadline_micros=deadline_micros,
        created_at=now,
        started_at=now if owner else None,
    )


def _existing(connection: Connection, request: StartRequest, row: Mapping[str, Any]) -> str | None:
    began_with = case((runs.c.earlier_lives > 0, runs.c.first_input), else_=runs.c.input).label("began_with")
    columns = (runs.c.id, runs.c.workflow, began_with)
    found = connection.execute(select(*columns).where(runs.c.id == row["id"])).one_or_none()
    what = "id"
    if found is None:
        what = "idempotency key"
        same_key = and_(
            func.coalesce(runs.c.principal, "") == (row["principal"] or ""),
            runs.c.idempotency_key == row["idempotency_key"],
        )
        found = connection.execute(select(*columns).where(same_key)).one_or_none()
    if found is None:
        return None
    same = found.workflow == request.workflow and (
        request.on_conflict == "existing" or _same_json(found.began_with, request.input)
    )
    if not same or request.on_conflict == "fail":
        raise RunConflict(row["id"] if what == "id" else str(request.idempotency_key), what)
    run_id: str = found.id
    return run_id


def _same_json(one: str | None, other: str | None) -> bool:
    return one == other or (one is not None and other is not None and decode_json(one) == decode_json(other))


def send_signal(
    connection: Connection, run_id: str, name: str, payload: str, key: str | None = None, *, now: int | None = None
) -> None:
    """Leave a signal for a run; it is kept until the run waits for it. With the same `key` again it changes nothing."""
    if key is not None:
        said = insert_into(connection, sent_signals).values(run=run_id, key=key).on_conflict_do_nothing()
        if connection.execute(said).rowcount == 0:
            return
    _send(connection, run_id, "signal", name, payload, now=now)


def signal_run(connection: Connection, run_id: str, name: str, payload: str) -> None:
    """The same as a run does it: what this function is called stands in its history."""
    send_signal(connection, run_id, name, payload)


def send_update(
    connection: Connection,
    run_id: str,
    name: str,
    payload: str,
    *,
    update_id: str,
    principal: str | None = None,
    now: int | None = None,
) -> None:
    """Leave an update for a run; the answer appears in `updates`. The same id again changes nothing."""
    now = SystemClock().micros() if now is None else now
    row = {"id": update_id, "run": run_id, "name": name, "status": "pending", "principal": principal, "sent_at": now}
    insert_new = insert_into(connection, updates).values(**row).on_conflict_do_nothing()
    if connection.execute(insert_new).rowcount:
        _send(connection, run_id, "update", name, payload, reference=update_id, now=now)


def cancel(connection: Connection, run_id: str, reason: str = "cancelled", now: int | None = None) -> str:
    """Ask a run to stop and undo what it did; returns its status. A run that has ended raises `CommandRefused`.

    A parked run undoes what it can, see `salvage`.
    """
    now = SystemClock().micros() if now is None else now
    row = lock_run(connection, run_id)
    if row.status == "cancelling":
        return "cancelling"
    has_past = row.status == "queued" and _has_past(connection, row)
    status = after(row.status, "recall" if has_past else "cancel", run_id=run_id)
    if status == "cancelled":
        _cancel_at_rest(connection, row, reason, now)
        return status
    asked = {"reason": reason} | ({PARKED: True} if row.status == "nondeterministic" else {})
    _send(connection, run_id, "cancel", "cancel", encode_json(asked), now=now)
    connection.execute(update(runs).where(runs.c.id == run_id).values(status=status))
    return status


def _has_past(connection: Connection, run: Any) -> bool:
    """Whether a run that is queued has done something that may have to be undone: it was retried, or is a fork.

    What it has begun has no row before it ends: a child, a step that a worker was at.
    """
    done = and_(history.c.run == run.id, history.c.kind != RECEIVED_KIND)
    return run.started_at is not None or connection.scalar(select(history.c.position).where(done).limit(1)) is not None


def _cancel_at_rest(connection: Connection, row: Any, reason: str, now: int) -> None:
    """A run that never began: nobody has it in memory, so it ends here."""
    record = encode_record(cancelled_record(row.id, reason))
    connection.execute(
        update(runs)
        .where(runs.c.id == row.id)
        .values(status="cancelled", error=record, ended_at=now, wake_at=None, waiting_for=None)
    )
    connection.publish(Teller(row, connection.source, row.earlier_lives).tell_end(RUN_CANCELLED, now, row))
    connection.notify(ENDED_TOPIC)
    if row.parent is not None:
        wake(connection, row.parent)


def reject_updates(connection: Connection, run_id: str, reason: str, now: int, *, unread: bool = True) -> None:
    """Reject the updates of a run that nobody will answer any more; `unread`: also those it has not taken."""
    asked = and_(updates.c.run == run_id, updates.c.status == "pending")
    if not unread:
        mine = and_(messages.c.run == run_id, messages.c.kind == "update")
        asked = and_(asked, updates.c.id.not_in(select(messages.c.reference).where(mine)))
    answer = {"status": "rejected", "reply": reason, "ended_at": now}
    if connection.execute(update(updates).where(asked).values(**answer)).rowcount:
        connection.notify(ENDED_TOPIC)


def asked_for(connection: Connection, run_id: str, name: str) -> str:
    """The id of what a run asks for by that name, else of what it asked for last; raises `ApprovalNotFound`."""
    of_run = select(approvals.c.id).where(approvals.c.run == run_id, approvals.c.name == name)
    is_pending = case((approvals.c.status == "pending", 0), else_=1)
    found: str | None = connection.scalar(of_run.order_by(is_pending, approvals.c.asked_at.desc()).limit(1))
    if found is None:
        raise ApprovalNotFound(name, run_id)
    return found


def decide(
    connection: Connection,
    approval_id: str,
    *,
    approved: bool,
    by: Principal,
    comment: str | None = None,
    form: Mapping[str, Any] | None = None,
    now: int | None = None,
) -> None:
    """Decide an approval, once; raises `ApprovalNotFound` or `ApprovalDecided`. Who may is the caller's to check."""
    now = SystemClock().micros() if now is None else now
    row = _lock_approval(connection, approval_id)
    decided = {
        "status": "approved" if approved else "rejected",
        "decided_at": now,
        "decided_by": by.subject,
        "decided_by_name": by.username,
        "comment": comment,
        "form": encode_json(dict(form)) if form is not None else None,
    }
    connection.execute(update(approvals).where(approvals.c.id == approval_id).values(**decided))
    try:
        run = lock_run(connection, row.run)
    except RunNotFound as gone:
        raise ApprovalNotFound(approval_id) from gone
    connection.publish(
        Teller(run, connection.source).tell_approval(
            APPROVAL_DECIDED,
            now,
            approval_id,
            name=row.name,
            approved=approved,
            by=by.subject,
            by_name=by.username,
            by_roles=list(by.roles),
            comment=comment,
            form=dict(form) if form is not None else None,
            about=decode_json(row.about) if row.about else None,
        )
    )
    answer = {"approved": approved, "by": by.subject, "comment": comment, "form": form}
    if run.status not in TERMINAL:
        _send(connection, row.run, "decision", row.operation, encode_json(answer), reference=approval_id, now=now)


def expire(connection: Connection, approval_id: str, now: int) -> bool:
    """Close a pending approval whose run waits no more; returns False when somebody was faster."""
    row = connection.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.status == "pending")
        .values(status="expired", decided_at=now)
        .returning(approvals.c.run, approvals.c.name)
    ).one_or_none()
    if row is None:
        status = connection.scalar(select(approvals.c.status).where(approvals.c.id == approval_id))
        return status in (None, "expired")
    run = connection.execute(select(runs).where(runs.c.id == row.run)).one()
    teller = Teller(run, connection.source)
    connection.publish(teller.tell_approval(APPROVAL_EXPIRED, now, approval_id, name=row.name))
    return True


def _lock_approval(connection: Connection, approval_id: str) -> Any:
    row = connection.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.status == "pending")
        .values(status="pending")
        .returning(approvals)
    ).one_or_none()
    if row is None:
        status = connection.scalar(select(approvals.c.status).where(approvals.c.id == approval_id))
        raise ApprovalNotFound(approval_id) if status is None else ApprovalDecided(approval_id, status)
    return row


def lock_run(connection: Connection, run_id: str) -> Any:
    """Lock the run's row and return it; raises `RunNotFound`, also for one that is being pruned."""
    row = connection.execute(select(runs).where(runs.c.id == run_id).with_for_update()).one_or_none()
    # Asked once the row is locked: a part of its history may be gone.
    if row is None or (row.ended_at is not None and _is_pruned(connection, run_id)):
        raise RunNotFound(run_id)
    return row


def _is_pruned(connection: Connection, run_id: str) -> bool:
    return connection.scalar(select(pruned_runs.c.run).where(pruned_runs.c.run == run_id)) is not None


def wake(connection: Connection, run_id: str) -> int | None:
    """Make a run due now and return its new count of wakes, or None when it has ended."""
    return wake_all(connection, [run_id]).get(run_id)


def wake_all(connection: Connection, run_ids: Sequence[str], times: int = 1) -> dict[str, int]:
    """Make runs due now and return their new counts of wakes, each so many more; those that have ended are left out."""
    woken = connection.execute(
        update(runs)
        .where(runs.c.id.in_(run_ids), runs.c.ended_at.is_(None))
        .values(
            wakes=runs.c.wakes + times,
            wake_at=case((or_(runs.c.status != "queued", runs.c.wake_at.is_(None)), 0), else_=runs.c.wake_at),
        )
        .returning(runs.c.id, runs.c.wakes)
    )
    connection.notify(RUNS_TOPIC)
    return {row.id: row.wakes for row in woken}


def _send(
    connection: Connection,
    run_id: str,
    kind: str,
    name: str,
    payload: str | None,
    *,
    reference: str | None = None,
    now: int | None,
) -> None:
    """Put a message into the run's inbox and wake it."""
    number = wake(connection, run_id)
    if number is None:
        row = lock_run(connection, run_id)
        number = wake(connection, run_id)  # it may have been saved only now
    if number is None:
        raise CommandRefused(run_id, kind, row.status, ["queued", "running", "waiting", "cancelling"])
    row = {
        "run": run_id,
        "number": number,
        "kind": kind,
        "name": name,
        "payload": payload,
        "reference": reference,
        "sent_at": SystemClock().micros() if now is None else now,
    }
    connection.execute(insert(messages).values(**row))
