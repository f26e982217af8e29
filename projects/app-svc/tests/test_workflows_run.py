"""The built-in workflows on the real engine, through the REST API, on both databases."""

from importlib.resources import files
from typing import Any

from sqlalchemy import select

from app_svc.tables import outgoing_messages, payments, shipments, stock, stock_reservations
from lib_auth.events import (
    AccessGranted,
    AccessGrantedData,
    AccessRequested,
    AccessRequestedData,
    UserRegistered,
    UserRegisteredData,
)
from lib_events.event import Cause, Event, EventType
from lib_events.testing import wait_until

AIRPORTS = (files("app_svc") / "data" / "us-airports.csv").read_text()
SMALL = "id,name,born\n1,Ann,1990-01-01\n2,Bob,1991-02-30\nx,Cid,1992-03-03\n4,Dan,1993-04-04\n5,Eve\n"


async def rows(app: Any, table: Any) -> list[dict[str, Any]]:
    found = await app.service.database.read(lambda connection: connection.execute(select(table)).mappings().all())
    return [dict(row) for row in found]


async def tell(app: Any, event_type: EventType[Any], payload: Any, subject: str) -> None:
    """Store an event as the importer would: from the AuthService."""
    event = Event.of(event_type, payload, source="/auth-svc", subject=subject)
    await app.service.database.transact(lambda connection: connection.publish(event))


async def events_of(client: Any, **filters: Any) -> list[dict[str, Any]]:
    return (await client.get("/v1/events", params=filters | {"limit": 200})).json()["items"]


async def test_a_real_file_is_imported_in_batches(any_app: Any) -> None:
    alice = any_app.client()
    run = await alice.run("import-table", {"name": "airports", "data": AIRPORTS})
    assert run["status"] == "completed", run["error"]
    report = run["output"]
    assert (report["rows"], report["accepted"], report["rejected"], report["batches"]) == (3_376, 3_376, 0, 7)
    latitude = next(column for column in report["columns"] if column["name"] == "latitude")
    assert (latitude["type"], latitude["min"], latitude["nulls"]) == ("number", 7.367222, 0)
    batches = await wait_until(lambda: _all_batches(alice, run["id"], 7))
    assert sorted(batch["data"]["batch"] for batch in batches) == [1, 2, 3, 4, 5, 6, 7]
    assert sum(len(batch["data"]["rows"]) for batch in batches) == 3_376


async def _all_batches(client: Any, run_id: str, count: int) -> Any:
    found = await events_of(client, types="table.rows.accepted", subject=run_id)
    return found if len(found) == count else None


async def test_the_file_is_not_repeated_in_the_history(app: Any) -> None:
    alice = app.client()
    run = await alice.run("import-table", {"name": "airports", "data": AIRPORTS})
    history = (await alice.get(f"/v1/runs/{run['id']}/history", params={"limit": 200})).json()["items"]
    assert {entry["kind"] for entry in history} >= {"step", "transaction", "view"}
    for entry in history:
        assert len(str(entry["input"])) < 2_000


async def test_rows_that_do_not_fit_are_rejected_with_line_and_reason(any_app: Any) -> None:
    run = await any_app.client().run("import-table", {"name": "people", "data": SMALL, "chunk_rows": 2})
    report = run["output"]
    assert [fault["line"] for fault in report["rejects"]] == [3, 4, 6]
    assert report["rejects"][1]["reason"] == "column 'id' must be an integer, got 'x'"
    assert (report["accepted"], report["rejected"]) == (2, 3)
    assert run["views"]["columns"] == {"id": "integer", "name": "text", "born": "date"}


async def test_a_malformed_file_fails_with_a_typed_error_that_says_what_to_do(any_app: Any) -> None:
    alice = any_app.client()
    run = await alice.run("import-table", {"name": "bad", "data": 'a,b\n1,"2\n'})
    assert (run["status"], run["error"]["type"]) == ("failed", "TableMalformed")
    assert run["error"]["message"] == "line 2: a quoted field that begins here must end with a quote; add it"
    empty = await alice.run("import-table", {"name": "empty", "data": ""})
    assert "choose one with a header line" in empty["error"]["message"]


async def test_an_order_reserves_pays_and_ships(any_app: Any) -> None:
    alice = any_app.client()
    run = await alice.run("order", {"sku": "mug-blue", "quantity": 3})
    assert run["status"] == "completed", run["error"]
    assert run["output"]["paid_cents"] == 3 * 14_50
    assert [row["status"] for row in await rows(any_app, payments)] == ["captured"]
    assert [row["status"] for row in await rows(any_app, shipments)] == ["shipped"]
    assert await available(any_app, "mug-blue") == 497
    await wait_until(lambda: _told(alice, run["id"], ["stock.reserved", "payment.captured", "shipment.sent"]))


async def available(app: Any, sku: str) -> int:
    return next(row["available"] for row in await rows(app, stock) if row["sku"] == sku)


async def _told(client: Any, run_id: str, expected: list[str]) -> bool:
    found = await events_of(client, types="order.*", subject=run_id)
    return [event["type"].removeprefix("order.") for event in found] == expected


async def test_a_declined_card_gives_the_stock_back(any_app: Any) -> None:
    alice = any_app.client()
    run = await alice.run("order", {"sku": "lamp", "quantity": 2, "card": "tok_declined"})
    assert (run["status"], run["error"]["type"]) == ("failed", "CardDeclined")
    assert run["error"]["message"] == "card tok_declined was declined: the bank refuses it; use another card"
    assert await available(any_app, "lamp") == 20
    assert [row["status"] for row in await rows(any_app, stock_reservations)] == ["released"]
    assert await rows(any_app, payments) == []
    await wait_until(lambda: _told(alice, run["id"], ["stock.reserved", "stock.released"]))


async def test_an_amount_over_the_cards_limit_is_declined(any_app: Any) -> None:
    run = await any_app.client().run("order", {"sku": "lamp", "quantity": 10})
    assert "over its limit" in run["error"]["message"]
    assert await available(any_app, "lamp") == 20


async def test_more_than_there_is_cannot_be_ordered(any_app: Any) -> None:
    run = await any_app.client().run("order", {"sku": "lamp", "quantity": 21})
    assert (run["error"]["type"], run["error"]["message"]) == (
        "OutOfStock",
        "quantity of 'lamp' must be at most 20, got 21; order less",
    )


async def test_an_article_there_is_not_is_refused_naming_those_there_are(any_app: Any) -> None:
    run = await any_app.client().run("order", {"sku": "tea"})
    assert run["error"]["type"] == "UnknownArticle"
    assert "tea-green" in run["error"]["message"]


async def test_a_cancelled_order_undoes_everything_it_did_in_reverse(any_app: Any) -> None:
    alice = any_app.client()
    body = {"workflow": "order", "input": {"sku": "kettle", "hold_seconds": 600, "hold_after": "shipment"}}
    run_id = (await alice.post("/v1/runs", body)).json()["id"]
    await alice.until(run_id, "waiting")
    assert await available(any_app, "kettle") == 49
    assert (await alice.post(f"/v1/runs/{run_id}/cancel", {"reason": "changed my mind"})).status_code == 202
    run = await alice.until(run_id, "cancelled")
    assert run["error"]["message"] == "changed my mind"
    assert await available(any_app, "kettle") == 50
    assert [row["status"] for row in await rows(any_app, payments)] == ["refunded"]
    assert [row["status"] for row in await rows(any_app, shipments)] == ["recalled"]
    expected = ["stock.reserved", "payment.captured", "shipment.sent"]
    expected += ["shipment.recalled", "payment.refunded", "stock.released"]
    await wait_until(lambda: _told(alice, run_id, expected))
    history = (await alice.get(f"/v1/runs/{run_id}/history")).json()["items"]
    undone = [entry["name"] for entry in history if entry["kind"] == "undo"]
    assert undone == ["recall_shipment", "refund_payment", "release_stock"]


async def test_a_cancelled_order_that_is_retried_pays_and_ships_again(any_app: Any) -> None:
    alice = any_app.client()
    body = {"workflow": "order", "input": {"sku": "kettle", "hold_seconds": 3, "hold_after": "payment"}}
    run_id = (await alice.post("/v1/runs", body)).json()["id"]
    await alice.until(run_id, "waiting")
    await alice.post(f"/v1/runs/{run_id}/cancel")
    await alice.until(run_id, "cancelled")
    assert (await alice.post(f"/v1/runs/{run_id}/retry")).status_code == 202
    await alice.until(run_id, "completed")
    assert sorted(row["status"] for row in await rows(any_app, payments)) == ["captured", "refunded"]
    assert [row["status"] for row in await rows(any_app, shipments)] == ["shipped"]
    assert await available(any_app, "kettle") == 49


async def test_who_registers_is_welcomed_once(any_app: Any) -> None:
    data = UserRegisteredData(user="u1", username="ulla", email="ulla@example.org")
    events = [Event.of(UserRegistered, data, source="/auth-svc", subject="u1") for _ in range(10)]
    await any_app.service.database.transact(lambda connection: connection.publish(*events))
    operator = any_app.operator()
    await wait_until(lambda: _ended(operator, "welcome-user", 10), timeout=20)
    (message,) = await rows(any_app, outgoing_messages)
    assert (message["recipient"], message["subject"]) == ("u1", "Welcome, ulla")

    async def all_told() -> bool:
        return len(await events_of(operator, types="welcome.message.sent", subject="u1")) == 10

    await wait_until(all_told)


async def _ended(client: Any, workflow: str, count: int) -> Any:
    found = (await client.get("/v1/runs", params={"workflow": workflow, "status": "completed"})).json()["items"]
    return found if len(found) == count else None


async def test_a_request_for_a_role_waits_for_an_admin_and_then_for_the_authservice(any_app: Any) -> None:
    asked = AccessRequestedData(request="r1", user="u1", username="ulla", role="operator", reason="on call", nonce="n1")
    await tell(any_app, AccessRequested, asked, "r1")
    admin, operator = any_app.admin(), any_app.operator()
    approval = await wait_until(lambda: _pending(admin))
    assert approval["to"] == "role:admin"
    assert approval["about"] == {"request": "r1", "user": "u1", "role": "operator", "nonce": "n1"}
    assert "ulla asks for the role operator: on call" in approval["text"]
    path = f"/v1/approvals/{approval['id']}/decision"
    assert (await operator.post(path, {"approved": True})).status_code == 404  # it names admins
    decided = await admin.post(path, {"approved": True, "comment": "fine"})
    assert decided.json()["status"] == "approved"
    assert (await admin.post(path, {"approved": False})).status_code == 409
    told = await wait_until(lambda: events_of(admin, types="evs.approval.decided"))
    assert told[0]["data"]["by"] == "ada"
    assert told[0]["data"]["by_roles"] == ["admin"]
    assert told[0]["data"]["about"]["nonce"] == "n1"
    await tell(any_app, AccessGranted, AccessGrantedData(request="r1", user="u1", role="operator", by="ada"), "r1")
    (run,) = await wait_until(lambda: _ended(operator, "access-request", 1), timeout=20)
    output = (await operator.get(f"/v1/runs/{run['id']}")).json()["output"]
    assert (output["outcome"], output["by"]) == ("granted", "ada")


async def test_nobody_but_the_authservice_asks_an_admin_for_a_role(any_app: Any, subtests: Any) -> None:
    """An approval says what the workflow was told: who asks must not be somebody's own words."""
    asked = {"request": "r1", "user": "u1", "role": "operator", "reason": "on call", "nonce": "n1"}
    forged = asked | {"username": "grace, whom everybody trusts"}
    data, cause = AccessRequestedData(**asked, username="mallory"), Cause(principal="mallory")
    event = Event.of(AccessRequested, data, source="/auth-svc", subject="r1", cause=cause)
    await any_app.service.database.transact(lambda connection: connection.publish(event))
    mallory, admin, operator = any_app.client("mallory"), any_app.admin(), any_app.operator()
    (run,) = await wait_until(lambda: _waiting(mallory))
    body = {"workflow": "access-request", "input": forged}
    for name, client, path, sent in (
        ("a start", mallory, "/v1/runs", body),
        ("a batch", mallory, "/v1/runs:batch", {"runs": [body]}),
        ("a fork", mallory, f"/v1/runs/{run['id']}/fork", {"from_step": "1", "input": forged}),
        ("a schedule", operator, "/v1/schedules", body | {"name": "forged", "every_seconds": 60}),
    ):
        with subtests.test(name):
            refused = await client.post(path, sent)
            assert (refused.status_code, "starts by itself" in refused.json()["detail"]) == (422, True), refused.text
    pending = (await admin.get("/v1/approvals", params={"status": "pending"})).json()["items"]
    assert ["mallory asks" in approval["text"] for approval in pending] == [True]


async def _waiting(client: Any) -> Any:
    params = {"workflow": "access-request", "status": "waiting"}
    return (await client.get("/v1/runs", params=params)).json()["items"]


async def _pending(client: Any) -> Any:
    found = (await client.get("/v1/approvals", params={"status": "pending"})).json()["items"]
    return found[0] if found else None
