"""The hot rows this library contributes to the group commit; the SQL is in `sql/`."""

from typing import NamedTuple

from lib_events.statement import Statement


def _load(name: str, /, **columns: str) -> Statement:
    return Statement.load("lib_workflows", name, columns)


INSERT_RUN = _load(
    "insert_run",
    id="text",
    workflow="text",
    version="integer",
    queue="text",
    priority="integer",
    status="text",
    owner="text",
    input="text",
    principal="text",
    principal_name="text",
    tags="text",
    correlation_id="text",
    causation_id="text",
    traceparent="text",
    parent="text",
    parent_operation="text",
    wake_at="bigint",
    deadline_at="bigint",
    created_at="bigint",
    started_at="bigint",
    depth="integer",
    queue_key="text",
    deadline_micros="bigint",
)
UPDATE_RUN = _load(
    "update_run",
    status="text",
    owner="text",
    seen="bigint",
    wake_at="bigint",
    waiting_for="text",
    output="text",
    error="text",
    started_at="bigint",
    ended_at="bigint",
    tags="text",
    id="text",
)
APPEND_HISTORY = _load(
    "append_history",
    run="text",
    position="bigint",
    operation="text",
    kind="text",
    name="text",
    status="text",
    attempt="integer",
    started_at="bigint",
    ended_at="bigint",
    input="text",
    output="text",
    error="text",
    meta="text",
)
PUT_HEARTBEAT = _load("put_heartbeat", run="text", operation="text", progress="text", sent_at="bigint", name="text")
WAKE_RUN = _load("wake_run", id="text")
DELETE_MESSAGE = _load("delete_message", run="text", number="bigint")
DELETE_EVENT_WAIT = _load("delete_event_wait", run="text", operation="text")
SET_VIEW = _load("set_view", run="text", name="text", value="text", position="bigint", updated_at="bigint")
PUT_ATTEMPT = _load(
    "put_attempt", run="text", operation="text", attempt="integer", next_at="bigint", error="text", name="text"
)
DELETE_ATTEMPT = _load("delete_attempt", run="text", operation="text")
INSERT_APPROVAL = _load(
    "insert_approval",
    id="text",
    run="text",
    operation="text",
    workflow="text",
    name="text",
    text="text",
    addressee="text",
    about="text",
    asked_at="bigint",
    due_at="bigint",
)
APPEND_LOG = _load(
    "append_log",
    run="text",
    number="bigint",
    at="bigint",
    level="text",
    logger="text",
    message="text",
    operation="text",
    attempt="integer",
)
ANSWER_UPDATE = _load("answer_update", status="text", reply="text", ended_at="bigint", id="text", run="text")


class HistoryRow(NamedTuple):
    """One row of a history, in the order of the statement's columns."""

    run: str
    position: int
    operation: str
    kind: str
    name: str
    status: str
    attempt: int
    started_at: int
    ended_at: int
    input: str | None = None
    output: str | None = None
    error: str | None = None
    meta: str | None = None
