"""Runs and their streams over REST, as programs use them."""

import asyncio
import json
import logging
import re
import uuid
from dataclasses import asdict
from typing import Any

import jsonschema
import pytest
from sqlalchemy import update

from app_svc import run_desk
from app_svc.permissions import SIGNED
from app_svc.workflows.order import order
from lib_events.testing import wait_until
from lib_workflows import Context, workflow
from lib_workflows.errors import Nondeterministic
from lib_workflows.tables import runs
from lib_workflows.testing import replay_history


async def test_a_start_is_accepted_with_its_place_and_waits_on_request(app: Any) -> None:
    alice = app.client()
    accepted = await alice.post("/v1/runs", {"workflow": "order", "input": {}, "tags": {"team": "a"}})
    run = accepted.json()
    assert (accepted.status_code, accepted.headers["location"]) == (202, f"/v1/runs/{run['id']}")
    assert run["principal"] == {"subject": "alice", "username": "alice"}
    assert run["tags"] == {"team": "a"}
    waited = await alice.post("/v1/runs", {"workflow": "order", "input": {}}, headers={"prefer": "wait=99"})
    assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=60")
    assert waited.json()["status"] == "completed"
    late = {"workflow": "order", "input": {"hold_seconds": 60}}
    early = await alice.post("/v1/runs", late, headers={"prefer": "wait=0"})
    assert early.status_code == 202


async def test_a_start_is_answered_as_the_run_is_read(any_app: Any) -> None:
    alice = any_app.client()
    late = {"workflow": "order", "input": {"quantity": 2}, "delay_seconds": 3600, "priority": 3, "queue": "later"}
    late |= {"tags": {"team": "a"}, "deadline": "2099-01-01T00:00:00Z"}
    started = (await alice.post("/v1/runs", late)).json()
    assert started == (await alice.get(f"/v1/runs/{started['id']}")).json()
    assert (started["status"], started["input"]["quantity"]) == ("queued", 2)
    many = (await alice.post("/v1/runs:batch", {"runs": [late] * 3})).json()["items"]
    listed = {item["id"]: item for item in (await alice.get("/v1/runs")).json()["items"]}
    assert [listed[item["id"]] for item in many] == many
    at_once = (await alice.post("/v1/runs", {"workflow": "order", "input": {}})).json()
    assert (at_once["status"], at_once["started_at"]) == ("running", at_once["created_at"])
    assert set(await alice.until(at_once["id"], "completed")) == set(at_once)


async def test_a_failed_run_is_answered_as_it_ended(app: Any) -> None:
    run = await app.client().run("order", {"card": "tok_declined"})
    assert (run["status"], run["error"]["type"]) == ("failed", "CardDeclined")
    assert run["ended_at"].endswith("Z")


async def test_a_batch_starts_all_its_runs_in_one_commit(app: Any) -> None:
    alice = app.client()
    body = {"runs": [{"workflow": "order", "input": {"quantity": n}} for n in range(1, 21)]}
    answer = await alice.post("/v1/runs:batch", body)
    started = [item["id"] for item in answer.json()["items"]]
    assert (answer.status_code, len(set(started))) == (202, 20)
    named = {"runs": [{"workflow": "order", "input": {}, "id": f"n{n}"} for n in range(3)]}
    again = [await alice.post("/v1/runs:batch", named) for _ in range(2)]
    assert [[item["id"] for item in found.json()["items"]] for found in again] == [["n0", "n1", "n2"]] * 2
    for run_id in [*started, "n0", "n1", "n2"]:
        await alice.until(run_id, "completed")


async def test_lists_are_filtered_and_come_in_pages_newest_first(any_app: Any) -> None:
    alice = any_app.client()
    ids = []
    for number in range(7):
        tags = {"team": "red" if number % 2 else "blue", "we.ird": "1"}
        ids.append((await alice.run("order", {"sku": "mug-blue"}, tags=tags))["id"])
    await alice.run("order", {"card": "tok_declined"})
    found, cursor = [], None
    while True:
        parameters = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await alice.get("/v1/runs", params=parameters)).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [run["id"] for run in found[1:]] == list(reversed(ids))

    async def count(**filters: Any) -> int:
        return len((await alice.get("/v1/runs", params=filters)).json()["items"])

    assert await count(status="failed") == 1
    assert await count(status=["failed", "completed"]) == 8
    assert await count(workflow="import-table") == 0
    assert await count(tag="team:red") == 3
    assert await count(tag="team") == 7
    assert await count(tag=["team:red", "we.ird"]) == 3
    assert await count(tag=["team:red", "team:blue"]) == 0
    assert await count(tag="we.ird:1") == 7
    assert await count(tag='te"am:red') == 0
    assert await count(q="DECLINED") == 1
    assert await count(q="%") == 0
    assert await count(since=found[0]["created_at"]) == 1


async def test_the_runs_that_a_run_started_are_listed(
    make_settings: Any, issuer: Any, run_app: Any, tmp_path: Any
) -> None:
    flow = tmp_path / f"family_{uuid.uuid4().hex[:8]}.py"
    flow.write_text(
        "from lib_workflows import Context, workflow\n"
        "@workflow(name='grandchild')\n"
        "async def grandchild(ctx: Context, number: int) -> int:\n"
        "    return number\n"
        "@workflow(name='family')\n"
        "async def family(ctx: Context) -> int:\n"
        "    return sum(await ctx.gather(*(ctx.child(grandchild, n) for n in range(3))))\n"
    )
    async with run_app(make_settings(workflows=[str(flow)]), issuer) as app:
        alice = app.client()
        run = await alice.run("family")
        children = (await alice.get("/v1/runs", params={"parent": run["id"]})).json()["items"]
        assert [(child["workflow"], child["parent"]) for child in children] == [("grandchild", run["id"])] * 3
        assert len((await alice.get("/v1/runs")).json()["items"]) == 4


async def test_history_comes_in_pages_in_order(app: Any) -> None:
    alice = app.client()
    run = await alice.run("order", {})
    path = f"/v1/runs/{run['id']}/history"
    whole = (await alice.get(path)).json()["items"]
    first = (await alice.get(path, params={"limit": 2})).json()
    second = (await alice.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert first["items"] + second["items"] == whole[:4]
    assert [entry["name"] for entry in whole][:1] == ["reserve_stock"]
    assert (await alice.get(f"/v1/runs/{run['id']}/views/stage")).json() == run["views"]["stage"]


async def test_many_runs_are_cancelled_by_a_filter(app: Any) -> None:
    alice, operator = app.client(), app.operator()
    held = {"workflow": "order", "input": {"hold_seconds": 600}, "tags": {"batch": "b"}}
    ids = sorted([(await alice.post("/v1/runs", held)).json()["id"] for _ in range(3)])
    for run_id in ids:
        await alice.until(run_id, "waiting")
    body = {"filter": {"tag": "batch:b", "status": ["waiting"]}, "dry_run": True}
    neither = {"filter": {"tag": ["batch:b", "team:a"]}}
    assert (await operator.post("/v1/runs:cancel", neither)).json()["matched"] == 0
    dry = (await operator.post("/v1/runs:cancel", body)).json()
    assert (dry["matched"], sorted(dry["changed"])) == (3, ids)
    assert sorted((await operator.post("/v1/runs:cancel", body | {"dry_run": False})).json()["changed"]) == ids
    for run_id in ids:
        await alice.until(run_id, "cancelled")


async def test_a_bulk_command_passes_over_runs_it_cannot_change(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_desk, "BULK_LIMIT", 2)
    alice, operator = app.client(), app.operator()
    for _ in range(3):
        await alice.run("order", {})
    held = (await alice.post("/v1/runs", {"workflow": "order", "input": {"hold_seconds": 600}})).json()["id"]
    await alice.until(held, "waiting")
    answer = (await operator.post("/v1/runs:cancel", {"filter": {"workflow": "order"}})).json()
    assert answer == {"matched": 1, "changed": [held], "refused": {}, "more": False}
    await alice.until(held, "cancelled")
    assert (await operator.post("/v1/runs:retry", {"filter": {}})).json()["changed"] == [held]
    asked = {"filter": {"status": ["completed"]}}
    assert len((await operator.post("/v1/runs:cancel", asked)).json()["refused"]) == 2


async def test_many_runs_are_retried_and_no_child_beside_the_parent_that_starts_it_anew(
    make_settings: Any, issuer: Any, run_app: Any, tmp_path: Any
) -> None:
    """Both would do what the child does."""
    flow, trouble, did = tmp_path / f"trouble_{uuid.uuid4().hex[:8]}.py", tmp_path / "trouble", tmp_path / "did"
    flow.write_text(
        "from pathlib import Path\n"
        "from lib_workflows import Context, step, workflow\n"
        "@step\n"
        "def ship() -> None:\n"
        f"    if Path({str(trouble)!r}).exists(): raise ConnectionError('trouble')\n"
        f"    with open({str(did)!r}, 'a') as file: file.write('shipped\\n')\n"
        "@workflow(name='shipment')\n"
        "async def shipment(ctx: Context) -> None:\n"
        "    await ctx.step(ship)\n"
        "@workflow(name='whole-order')\n"
        "async def whole_order(ctx: Context) -> None:\n"
        "    await ctx.child(shipment)\n"
    )
    trouble.touch()
    async with run_app(make_settings(workflows=[str(flow)]), issuer) as app:
        alice, operator = app.client(), app.operator()
        run = await alice.run("whole-order")
        (child,) = (await alice.get("/v1/runs", params={"parent": run["id"]})).json()["items"]
        trouble.unlink()
        asked = {"filter": {"status": ["failed"]}}
        dry = (await operator.post("/v1/runs:retry", asked | {"dry_run": True})).json()
        answer = (await operator.post("/v1/runs:retry", asked)).json()
        assert answer == dry
        assert (answer["matched"], answer["changed"], list(answer["refused"])) == (2, [run["id"]], [child["id"]])
        await alice.until(run["id"], "completed")
        assert (await alice.get(f"/v1/runs/{child['id']}")).json()["status"] == "failed"
        assert did.read_text() == "shipped\n"
        alone = {"filter": {"workflow": "shipment", "status": ["failed"]}}
        assert (await operator.post("/v1/runs:retry", alone)).json()["changed"] == [child["id"]]


async def test_a_bulk_command_leaves_a_run_alone_that_matches_no_more_when_its_turn_comes(
    any_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, operator = any_app.client(), any_app.operator()
    later = {"workflow": "order", "input": {"hold_seconds": 600}, "delay_seconds": 3600}
    begins, waits = [(await alice.post("/v1/runs", later)).json()["id"] for _ in range(2)]
    command = run_desk.RunDesk.command

    async def begin_first(desk: Any, run_id: str, *rest: Any) -> Any:
        due = update(runs).where(runs.c.id == begins, runs.c.status == "queued").values(wake_at=0)
        await any_app.service.database.transact(lambda connection: (connection.execute(due), connection.notify("runs")))
        await alice.until(begins, "waiting")
        return await command(desk, run_id, *rest)

    monkeypatch.setattr(run_desk.RunDesk, "command", begin_first)
    answer = (await operator.post("/v1/runs:cancel", {"filter": {"status": ["queued"]}})).json()
    assert (answer["matched"], answer["changed"], list(answer["refused"])) == (2, [waits], [begins])
    assert "matches the filter no more" in answer["refused"][begins]
    assert (await alice.until(begins, "waiting"))["status"] == "waiting"


async def test_a_failed_run_is_forked_with_another_input(app: Any) -> None:
    alice = app.client()
    run = await alice.run("order", {"card": "tok_declined"})
    answer = await alice.post(f"/v1/runs/{run['id']}/fork", {"input": {"card": "tok_visa"}})
    forked = await alice.until(answer.json()["id"], "completed")
    assert (forked["forked_from"], answer.status_code) == (run["id"], 202)
    nowhere = await alice.post(f"/v1/runs/{run['id']}/fork", {"from_step": "99"})
    assert (nowhere.status_code, nowhere.json()["errors"][0]["pointer"]) == (422, "/from_step")


async def test_own_workflows_take_signals_and_updates(
    make_settings: Any, issuer: Any, run_app: Any, tmp_path: Any
) -> None:
    flow = tmp_path / f"conversation_{uuid.uuid4().hex[:8]}.py"
    flow.write_text(
        "from lib_workflows import Context, Signal, Update, workflow\n"
        "hello = Signal('hello', str)\n"
        "ask = Update('ask', int, int)\n"
        "@workflow(name='conversation', version=1)\n"
        "async def conversation(ctx: Context) -> str:\n"
        "    call = await ctx.wait_update(ask)\n"
        "    if call.value < 0:\n"
        "        await call.reject('must not be negative')\n"
        "        call = await ctx.wait_update(ask)\n"
        "    await call.reply(call.value * 2)\n"
        "    return await ctx.wait_signal(hello)\n"
    )
    async with run_app(make_settings(workflows=[str(flow)]), issuer) as app:
        alice = app.client()
        assert (await alice.get("/v1/workflows/conversation")).json()["input_schema"] is None
        run_id = (await alice.post("/v1/runs", {"workflow": "conversation"})).json()["id"]
        refused = await alice.post(f"/v1/runs/{run_id}/updates/ask", -1)
        assert (refused.status_code, refused.json()["detail"]) == (409, "must not be negative")
        answered = await alice.post(f"/v1/runs/{run_id}/updates/ask", 21)
        assert (answered.status_code, answered.json()["reply"]) == (200, 42)
        assert (await alice.post(f"/v1/runs/{run_id}/signals/hello", "there")).status_code == 202
        assert (await alice.until(run_id, "completed"))["output"] == "there"


async def test_the_catalogue_shows_schemas_a_form_can_be_made_of(app: Any) -> None:
    found = {item["name"]: item for item in (await app.client().get("/v1/workflows")).json()["items"]}
    assert set(found) == {"access-request", "import-table", "order", "welcome-user"}
    table = found["import-table"]
    assert table["input_schema"]["properties"]["data"]["contentMediaType"] == "text/csv"
    assert found["access-request"]["on"] == ["evs.access.requested"]
    for document in found.values():
        for schema in (document["input_schema"], document["output_schema"]):
            jsonschema.Draft202012Validator.check_schema(schema)


async def test_the_catalogue_and_the_metrics_tell_what_gathers(
    make_settings: Any, issuer: Any, run_app: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app_svc.engine_metrics.GOOD_SECONDS", 0.0)
    flow = tmp_path / f"settling_{uuid.uuid4().hex[:8]}.py"
    flow.write_text(
        "from dataclasses import dataclass\n"
        "from datetime import timedelta\n"
        "from lib_workflows import Batch, Context, EventType, workflow\n"
        "@dataclass\n"
        "class Count:\n"
        "    shop: str\n"
        "    things: int\n"
        "Counted = EventType('shop.things.counted', Count)\n"
        "@workflow(name='settling', on=Counted, batch=Batch(events=3, timeout=timedelta(hours=1), key='shop'),"
        " deadline=timedelta(minutes=5))\n"
        "async def settling(ctx: Context, counts: list[Count]) -> int:\n"
        "    return sum(count.things for count in counts)\n"
    )
    async with run_app(make_settings(workflows=[str(flow)]), issuer) as app:
        alice = app.client()
        shown = (await alice.get("/v1/workflows/settling")).json()
        assert shown["on"] == ["shop.things.counted"]
        assert shown["batch"] == {"events": 3, "timeout_seconds": 3600.0, "key": "shop"}
        assert shown["deadline_seconds"] == 300.0
        other = (await alice.get("/v1/workflows/order")).json()
        assert (other["batch"], other["deadline_seconds"]) == (None, None)
        event = {"specversion": "1.0", "source": "/test", "type": "shop.things.counted"}
        events = [event | {"id": str(things), "data": {"shop": "a", "things": things}} for things in range(5)]
        headers = {"content-type": "application/cloudevents-batch+json"}
        sent = await alice.request("POST", "/v1/events", content=json.dumps(events).encode(), headers=headers)
        assert sent.status_code == 202, sent.text

        async def has_gathered() -> bool:
            return 'evs_gathering_events{workflow="settling"} 2.0' in (await app.http.get("/metrics")).text

        await wait_until(has_gathered)
        runs = (await alice.get("/v1/runs", params={"workflow": "settling"})).json()["items"]
        assert (await alice.until(runs[0]["id"], "completed"))["output"] == 3
        assert len(runs) == 1


async def test_a_run_is_followed_live_from_its_start_to_its_end(any_app: Any) -> None:
    alice = any_app.client()
    body = {"workflow": "order", "input": {"hold_seconds": 0.5}}
    run_id = (await alice.post("/v1/runs", body)).json()["id"]
    seen: list[str] = []
    async with asyncio.timeout(20), alice.stream(f"/v1/runs/{run_id}/events") as messages:
        async for identifier, name, data in messages:
            assert identifier or name == "evs.run.progressed"
            assert data["type"] == name
            seen.append(name)
            if name == "evs.run.completed":
                break
    assert seen[0] == "evs.run.started" or "evs.run.started" in seen
    assert "order.payment.captured" in seen
    assert "evs.step.completed" in seen


async def test_who_takes_over_a_correlation_id_does_not_read_others_events(app: Any) -> None:
    alice, mallory = app.client("alice"), app.client("mallory")
    story = {"x-request-id": "story"}
    run = (await alice.post("/v1/runs", {"workflow": "order", "input": {}}, headers=story)).json()
    await wait_until(lambda: alice.ended_event(run["id"]))
    own = (await mallory.post("/v1/runs", {"workflow": "order", "input": {}}, headers=story)).json()
    seen = []
    async with asyncio.timeout(10), mallory.stream(f"/v1/runs/{own['id']}/events", **{"last-event-id": "1.0"}) as told:
        async for identifier, name, data in told:
            if identifier is not None:
                seen.append(data["principal"])
            if name == "evs.run.completed":
                break
    assert set(seen) == {"mallory"}


async def test_progress_is_live(app: Any) -> None:
    alice = app.client()
    text = "n\n" + "".join(f"{n}\n" for n in range(20_000))
    answer = await alice.post(
        "/v1/runs", {"workflow": "import-table", "input": {"name": "n", "data": text, "chunk_rows": 200}}
    )
    run_id = answer.json()["id"]
    fractions = []
    async with asyncio.timeout(30), alice.stream(f"/v1/runs/{run_id}/events") as messages:
        async for identifier, name, data in messages:
            if name == "evs.run.progressed":
                assert identifier is None
                fractions.append(data["data"]["fraction"])
            if name == "evs.run.completed":
                break
    assert fractions
    assert fractions == sorted(fractions)


async def test_a_stream_goes_on_after_the_last_event_that_was_seen(any_app: Any) -> None:
    alice = any_app.client()
    first = await alice.run("order", {})
    page = await wait_until(lambda: alice.ended_event(first["id"]))
    cursor = page["position"]
    second = await alice.run("order", {})
    async with asyncio.timeout(10):
        async with alice.stream("/v1/events", **{"last-event-id": cursor}) as messages:
            async for _, name, data in messages:
                assert data["subject"] == second["id"]
                if name == "evs.run.completed":
                    break
        async with alice.stream(f"/v1/events?after={cursor}&types=order.*") as messages:
            assert [name async for _, name, _ in _take(messages, 3)] == [
                "order.stock.reserved",
                "order.payment.captured",
                "order.shipment.sent",
            ]


async def _take(messages: Any, count: int) -> Any:
    for _ in range(count):
        yield await anext(messages)


# What anybody may read


async def test_the_openapi_document_names_scope_and_role_of_every_operation(app: Any) -> None:
    document = (await app.http.get("/openapi.json")).json()
    start = document["paths"]["/v1/runs"]["post"]
    assert start["security"] == [{"oauth": ["workflows:run"]}]
    assert "scope `workflows:run` and role `member`" in start["description"]
    assert document["components"]["securitySchemes"]["oauth"]["openIdConnectUrl"].startswith(app.issuer.url)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert bool(operation["security"]) != ((method.upper(), path) in SIGNED), path


async def test_metrics_and_health_are_there(app: Any) -> None:
    await app.client().get("/v1/workflows")
    metrics = (await app.http.get("/metrics")).text
    assert 'evs_http_requests_total{method="GET",route="/v1/workflows",status="200"}' in metrics
    ready = (await app.http.get("/readyz")).json()
    assert ready["checks"] == {"database": "ok", "revocations": "ok"}


async def test_metrics_tell_what_has_ended_and_what_waits(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app_svc.engine_metrics.GOOD_SECONDS", 0.0)
    alice, operator = app.client(), app.client("olga", roles=("member", "operator"))
    await alice.run("order", {})
    await operator.post("/v1/queues/later/pause")
    held = {"workflow": "order", "input": {}, "queue": "later"}
    for more in ({}, {"delay_seconds": 3600}):
        assert (await operator.post("/v1/runs", held | more)).status_code == 202

    async def page_with_the_end() -> str | None:
        found: str = (await app.http.get("/metrics")).text
        return found if "evs_runs_in_memory 0.0" in found else None

    page = await wait_until(page_with_the_end)
    for line in (
        'evs_runs_ended_total{status="completed",workflow="order"} 1.0',
        'evs_queue_runs{queue="later",state="due"} 1.0',
        'evs_queue_runs{queue="later",state="later"} 1.0',
        'evs_queue_runs{queue="later",state="under_way"} 0.0',
        'evs_queue_paused{queue="later"} 1.0',
    ):
        assert line in page
    assert float(re.findall(r'evs_queue_wait_seconds{queue="later"} (.*)', page)[0]) > 0


async def test_the_service_stops_while_streams_are_open_and_work_is_under_way(
    make_settings: Any, issuer: Any, run_app: Any
) -> None:
    async with asyncio.timeout(20):
        async with run_app(make_settings(), issuer) as app:
            alice = app.client()
            await alice.post("/v1/runs", {"workflow": "order", "input": {"hold_seconds": 60}})
            async with alice.stream("/v1/events") as messages:
                app.service.streams.close()
                async for _ in messages:
                    pass


async def test_an_operator_sees_what_the_runs_of_a_workflow_take(any_app: Any) -> None:
    alice, olga = any_app.client(), any_app.operator()
    nothing = {"workflow": "order", "runs": {}, "rows": 0, "bytes": 0}
    assert (await olga.get("/v1/workflows/order/size")).json() == nothing
    await alice.run("order", {})
    size = (await olga.get("/v1/workflows/order/size")).json()
    assert size["runs"] == {"completed": 1}
    assert size["bytes"] > 100
    assert (await alice.get("/v1/workflows/order/size")).status_code == 403
    assert (await olga.get("/v1/workflows/absent/size")).status_code == 404


async def test_runs_are_archived_and_go_as_the_settings_say(
    make_settings: Any, run_app: Any, issuer: Any, tmp_path: Any
) -> None:
    settings = make_settings(run_retention_days=1, run_archive=tmp_path / "archive")
    async with run_app(settings, issuer) as app:
        run = await app.client().run("order", {})
        long_ago = {"ended_at": runs.c.ended_at - 2 * 86_400_000_000}
        await app.service.database.transact(lambda connection: connection.execute(update(runs).values(long_ago)))
    async with run_app(settings, issuer) as app:

        async def is_gone() -> bool:
            return (await app.client().get(f"/v1/runs/{run['id']}")).status_code == 404

        await wait_until(is_gone)
    (archive,) = (tmp_path / "archive").iterdir()
    assert json.loads(archive.read_text())["run"]["id"] == run["id"]


async def test_what_a_run_logs_is_read_by_whoever_may_see_the_run(any_app: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="app_svc.workflows")  # as the service does
    alice = any_app.client()
    run = await alice.run("order", {})
    path = f"/v1/runs/{run['id']}/logs"
    first = (await alice.get(path, params={"limit": 2})).json()
    rest = (await alice.get(path, params={"cursor": first["next_cursor"]})).json()
    lines = [*first["items"], *rest["items"]]
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    (booked,) = [line for line in lines if line["operation"]]
    assert (booked["message"], booked["attempt"], booked["level"]) == ("booking a carrier, attempt 1", 1, "info")
    assert booked["logger"] == "app_svc.workflows.order"
    assert lines[-1]["message"].startswith(f"order {run['id']}: shipped as")
    assert (await alice.get(path, params={"after": len(lines) - 1})).json()["items"] == lines[-1:]
    assert (await any_app.client("bob").get(path)).status_code == 404
    assert (await any_app.operator().get(path)).json()["items"] == lines
    assert (await alice.get(path, params={"after": -1})).status_code == 422


async def test_a_history_says_what_undoes_an_operation_and_that_it_was_undone(app: Any) -> None:
    alice = app.client()
    kept = await alice.run("order", {})
    undone = await alice.run("order", {"card": "tok_declined"})

    async def undos_of(run: Any) -> list[Any]:
        items = (await alice.get(f"/v1/runs/{run['id']}/history")).json()["items"]
        return [(entry["name"], entry["undo"]["name"], entry["undo"]["status"]) for entry in items if entry["undo"]]

    assert (kept["undoing_since"], undone["undoing_since"]) == (None, None)
    assert await undos_of(undone) == [("reserve_stock", "release_stock", "undone")]
    assert await undos_of(kept) == [
        ("reserve_stock", "release_stock", "declared"),
        ("take_payment", "refund_payment", "declared"),
        ("ship", "recall_shipment", "declared"),
    ]


async def test_two_runs_are_compared_operation_by_operation(app: Any) -> None:
    alice = app.client()
    first = await alice.run("order", {"quantity": 1})
    forked = (await alice.post(f"/v1/runs/{first['id']}/fork", {"from_step": "3", "input": {"quantity": 2}})).json()
    await alice.until(forked["id"], "completed")
    answer = await alice.get(f"/v1/runs/{forked['id']}/comparison", params={"with": first["id"]})
    found = answer.json()
    assert (answer.status_code, found["run"], found["other"]) == (200, forked["id"], first["id"])
    assert found["fields"] == ["input", "output"]
    assert found["total"] == len(found["differences"])
    operations = [difference["operation"] for difference in found["differences"]]
    assert "1" not in operations  # both have what was copied
    paid = next(each for each in found["differences"] if each["run"]["name"] == "book_carrier")
    assert paid["fields"] == ["input", "output"]
    assert paid["run"]["input"] == [forked["id"]]
    assert paid["other"]["input"] == [first["id"]]
    few = await alice.get(f"/v1/runs/{forked['id']}/comparison", params={"with": first["id"], "limit": 1})
    assert (len(few.json()["differences"]), few.json()["total"]) == (1, found["total"])
    same = await alice.get(f"/v1/runs/{first['id']}/comparison", params={"with": first["id"]})
    assert (same.json()["fields"], same.json()["total"]) == ([], 0)


async def test_a_comparison_shows_nothing_of_a_run_one_may_not_see(app: Any, subtests: pytest.Subtests) -> None:
    alice, bob, operator = app.client(), app.client("bob"), app.client("olga", roles=("member", "operator"))
    hers, his = (await alice.run("order", {}))["id"], (await bob.run("order", {}))["id"]
    for of, other, hidden in ((hers, his, his), (his, hers, his), (hers, "absent", "absent")):
        with subtests.test(of=of, other=other):
            refused = await alice.get(f"/v1/runs/{of}/comparison", params={"with": other})
            assert (refused.status_code, refused.json()["type"]) == (404, "urn:evs:problem:run-not-found")
            assert hidden in refused.json()["detail"]
    with subtests.test("without another run"):
        assert (await alice.get(f"/v1/runs/{hers}/comparison")).status_code == 422
    with subtests.test("an operator sees both"):
        assert (await operator.get(f"/v1/runs/{hers}/comparison", params={"with": his})).status_code == 200


async def test_an_exported_run_is_replayed_against_the_code_of_today(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = app.client(), app.client("bob")
    run = await alice.run("order", {"quantity": 2})
    answer = await alice.get(f"/v1/runs/{run['id']}/export")
    assert answer.status_code == 200
    assert asdict(replay_history(order, answer.json())) == run["output"]

    @workflow(name="order")
    async def changed(ctx: Context, wish: dict[str, Any]) -> None:
        await ctx.sleep(1)

    with pytest.raises(Nondeterministic, match=r"the history has operation 1: .*, the code has operation 1: sleep"):
        replay_history(changed, answer.json())
    hidden = await bob.get(f"/v1/runs/{run['id']}/export")
    assert (hidden.status_code, hidden.json()["type"]) == (404, "urn:evs:problem:run-not-found")
    monkeypatch.setattr("app_svc.run_desk.EXPORT_BYTES", 1_000)
    too_large = await alice.get(f"/v1/runs/{run['id']}/export")
    assert (too_large.status_code, too_large.json()["type"]) == (413, "urn:evs:problem:history-too-large")
