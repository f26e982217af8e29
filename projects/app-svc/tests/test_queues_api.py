"""Queues over HTTP: who may, what is refused and how, and that runs really wait."""

from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from app_svc.settings import AppSettings
from lib_events.testing import wait_until
from lib_workflows.tables import runs

ORDER = {"workflow": "order", "input": {}}


async def test_a_queue_is_paused_and_resumed(any_app: Any) -> None:
    operator, alice = any_app.operator(), any_app.client()
    paused = (await operator.post("/v1/queues/orders/pause", {"note": "stocktaking"})).json()
    assert (paused["name"], paused["paused"], paused["note"]) == ("orders", True, "stocktaking")
    run = (await alice.post("/v1/runs", {**ORDER, "queue": "orders"})).json()
    assert run["status"] == "queued"
    many = await alice.post("/v1/runs:batch", {"runs": [{**ORDER, "queue": "orders"}] * 2})
    assert [item["status"] for item in many.json()["items"]] == ["queued"] * 2
    held = (await operator.get("/v1/queues/orders")).json()
    assert (held["queued"], held["due"], held["under_way"]) == (3, 3, 0)
    assert held["due_since"] == run["created_at"]
    resumed = (await operator.post("/v1/queues/orders/resume")).json()
    assert (resumed["paused"], resumed["note"]) == (False, "")
    await alice.until(run["id"], "completed")


async def test_limits_are_set_listed_and_taken_away(any_app: Any) -> None:
    operator = any_app.operator()
    limits = {"concurrency": 1, "rate": {"runs": 100, "seconds": 60.0}}
    made = await operator.request("PUT", "/v1/queues/narrow", json=limits)
    assert made.status_code == 200, made.text
    assert {name: made.json()[name] for name in limits} == limits
    listed = {item["name"]: item for item in (await operator.get("/v1/queues")).json()["items"]}
    assert listed["narrow"]["concurrency"] == 1
    assert "order" in listed["default"]["workflows"] + listed.get("orders", {"workflows": []})["workflows"]
    first = await operator.post("/v1/runs", {"workflow": "order", "input": {"hold_seconds": 60}, "queue": "narrow"})
    second = (await operator.post("/v1/runs", {**ORDER, "queue": "narrow"})).json()
    await operator.until(first.json()["id"], "waiting")
    assert (await operator.get(f"/v1/runs/{second['id']}")).json()["status"] == "queued"
    await operator.request("PUT", "/v1/queues/narrow", json={"rate": limits["rate"]})
    await operator.until(second["id"], "completed")
    cleared = (await operator.request("PUT", "/v1/queues/narrow", json={})).json()
    assert (cleared["concurrency"], cleared["rate"]) == (None, None)
    types = "evs.queue.changed"

    async def three_told() -> Any:
        told = (await any_app.admin().get("/v1/events", params={"types": types, "limit": 10})).json()["items"]
        return told if len(told) == 3 else None

    told = await wait_until(three_told)
    assert [event["data"]["concurrency"] for event in told] == [1, None, None]
    rate = {"rate_runs": 100, "rate_seconds": 60.0, "key": None, "per_key": None}
    of_keys = {"rate_per_key_runs": None, "rate_per_key_seconds": None}
    assert told[0]["data"] == {"queue": "narrow", "concurrency": 1, **rate, **of_keys}


async def test_a_rate_for_each_key_is_set_shown_and_counts(any_app: Any) -> None:
    operator = any_app.operator()
    limits = {"key": "customer", "per_key": 5, "rate_per_key": {"runs": 1, "seconds": 3600.0}}
    made = await operator.request("PUT", "/v1/queues/narrow", json=limits)
    assert {name: made.json()[name] for name in limits} == limits, made.text
    starts = [{**ORDER, "queue": "narrow", "queue_key": key} for key in ("ada", "ada", "bob")]
    first, second, other = [(await operator.post("/v1/runs", start)).json()["id"] for start in starts]
    for run in (first, other):
        await operator.until(run, "completed")
    waits = (await operator.get(f"/v1/runs/{second}")).json()
    assert (waits["status"], waits["waiting_for"][0]["kind"]) == ("queued", "slot")
    await operator.request("PUT", "/v1/queues/narrow", json={"key": "customer"})
    await operator.until(second, "completed")


async def test_limits_that_make_no_sense_are_refused_with_the_field(app: Any, subtests: pytest.Subtests) -> None:
    operator = app.operator()
    wrong: dict[str, dict[str, Any]] = {
        "/concurrency": {"concurrency": 0},
        "/rate/runs": {"rate": {"runs": 0, "seconds": 1}},
        "/rate/seconds": {"rate": {"runs": 1, "seconds": 0}},
        "/limit": {"limit": 5},
        "/rate_per_key": {"rate_per_key": {"runs": 1, "seconds": 1}},
        "/rate_per_key/runs": {"key": "to", "rate_per_key": {"runs": 0, "seconds": 1}},
        "/per_key": {"per_key": 1},
        "/key": {"key": ""},
    }
    for pointer, body in wrong.items():
        with subtests.test(pointer):
            refused = await operator.request("PUT", "/v1/queues/narrow", json=body)
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert (await app.client().get("/v1/queues")).status_code == 403, "queues are the operators'"


async def test_a_burst_of_starts_is_one_run_of_ones_own(any_app: Any) -> None:
    alice, bob = any_app.client(), any_app.client("bob")
    body = {"workflow": "order", "delay_seconds": 3600, "debounce": {"key": "cart", "limit_seconds": 7200}}
    first = (await alice.post("/v1/runs", {**body, "input": {"quantity": 1}})).json()
    last = (await alice.post("/v1/runs", {**body, "input": {"quantity": 2}})).json()
    assert (last["id"], last["input"]["quantity"], last["status"]) == (first["id"], 2, "queued")
    assert (await bob.post("/v1/runs", {**body, "input": {}})).json()["id"] != first["id"]
    batch = (await alice.post("/v1/runs:batch", {"runs": [{**body, "input": {"quantity": 3}}] * 2})).json()["items"]
    assert [item["id"] for item in batch] == [first["id"]] * 2
    for more in ({"delay_seconds": 0}, {"id": "mine"}):
        refused = await alice.post("/v1/runs", {**body, "input": {}, **more})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/debounce")


async def test_limits_declared_in_code_are_changed_in_code(
    make_settings: Any, issuer: Any, run_app: Any, tmp_path: Any
) -> None:
    (tmp_path / "mail.py").write_text(
        "from lib_workflows import Context, Queue, workflow\n\n"
        '@workflow(name="mail", queue=Queue("mail", concurrency=2, key="to", per_key=1))\n'
        "async def mail(ctx: Context, letter: dict[str, str]) -> None: ...\n"
    )
    settings: AppSettings = make_settings(workflows=str(tmp_path / "mail.py"))
    async with run_app(settings, issuer) as app:
        operator = app.operator()
        shown = (await operator.get("/v1/queues/mail")).json()
        assert (shown["concurrency"], shown["declared"], shown["workflows"]) == (2, True, ["mail"])
        assert (shown["key"], shown["per_key"]) == ("to", 1)
        refused = await operator.request("PUT", "/v1/queues/mail", json={"concurrency": 9})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:evs:problem:queue-declared")
        assert (await operator.post("/v1/queues/mail/pause")).json()["paused"]
        run = (await operator.post("/v1/runs", {"workflow": "mail", "input": {"to": "ada"}})).json()
        elsewhere = {"workflow": "mail", "input": {"to": "ada"}, "queue": "default"}
        around = await app.client().post("/v1/runs", elsewhere)
        assert (around.status_code, around.json()["type"]) == (403, "urn:evs:problem:queue-limited")
        assert (await operator.post("/v1/runs", elsewhere)).status_code == 202
        said = {"workflow": "mail", "input": {"to": "ada"}, "queue_key": "eve"}
        refused = await app.client().post("/v1/runs", said)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:evs:problem:queue-limited")
        other = (await operator.post("/v1/runs", said)).json()
        for run_id, key in ((run["id"], "ada"), (other["id"], "eve")):
            query = select(runs.c.queue_key).where(runs.c.id == run_id)
            assert await app.service.database.read(lambda connection, query=query: connection.scalar(query)) == key


async def test_a_queue_is_named_so_that_it_has_a_page(app: Any, subtests: pytest.Subtests) -> None:
    operator = app.operator()
    for name in ("team/mail", ".", "..", "nul\x00", ""):
        for path, body in (("runs", {}), ("schedules", {"name": "s", "every_seconds": 60})):
            with subtests.test(f"{path} {name!r}"):
                refused = await operator.post(f"/v1/{path}", {"workflow": "order", "queue": name, **body})
                assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/queue")
    for name in ("a b", "…", "...", ".x", "a?b#c%2F"):
        with subtests.test(name):
            late = {"workflow": "order", "input": {}, "queue": name, "delay_seconds": 3600}
            assert (await operator.post("/v1/runs", late)).status_code == 202
            shown = await operator.get(f"/v1/queues/{quote(name, safe='')}")
            assert (shown.json()["name"], shown.json()["queued"]) == (name, 1)
