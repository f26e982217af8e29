"""Updates and signals over REST: sent once, answered when the run comes to it, and read whenever."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lib_workflows.tables import messages

FLOW = """
from lib_workflows import Context, Signal, Update, workflow

go_on = Signal("go-on", str)
ask = Update("ask", int, int)


@workflow(name="counter", version=1)
async def counter(ctx: Context) -> list[int]:
    await ctx.wait_signal(go_on)
    asked = []
    while len(asked) < 2:
        call = await ctx.wait_update(ask)
        if call.value < 0:
            await call.reject("must not be negative")
            continue
        asked.append(call.value)
        await call.reply(sum(asked))
    return asked
"""
AT_ONCE = {"prefer": "wait=0"}


@pytest.fixture
async def asked(run_app: Any, make_settings: Any, issuer: Any, tmp_path: Path) -> Any:
    """A run that hears of nothing yet."""
    flow = tmp_path / f"counter_{uuid.uuid4().hex[:8]}.py"
    flow.write_text(FLOW)
    async with run_app(make_settings(workflows=[str(flow)]), issuer) as app:
        alice = app.client()
        run = (await alice.post("/v1/runs", {"workflow": "counter"})).json()
        yield app, alice, f"/v1/runs/{run['id']}"


async def test_an_answer_that_comes_later_is_read_where_the_update_said(asked: Any) -> None:
    _, alice, run = asked
    sent = await alice.post(f"{run}/updates/ask", 21, headers=AT_ONCE)
    place = sent.headers["location"]
    assert (sent.status_code, sent.json()["status"], place) == (202, "pending", f"/v1/updates/{sent.json()['id']}")
    assert (await alice.get(place)).json() == sent.json()
    await alice.post(f"{run}/signals/go-on", "")
    answer = (await alice.get(place, headers={"prefer": "wait=60"})).json()
    assert answer == {"id": sent.json()["id"], "status": "completed", "reply": 21}


async def test_an_update_that_is_sent_again_with_its_key_is_asked_once(asked: Any) -> None:
    app, alice, run = asked
    key = AT_ONCE | {"idempotency-key": "once"}
    first, again = [await alice.post(f"{run}/updates/ask", 3, headers=key) for _ in range(2)]
    of_operator = await app.operator().post(f"{run}/updates/ask", 4, headers=key)
    assert first.json() == again.json() != of_operator.json()
    await alice.post(f"{run}/signals/go-on", "")
    assert (await alice.until(run.removeprefix("/v1/runs/"), "completed"))["output"] == [3, 4]
    after_its_end = await alice.post(f"{run}/updates/ask", 3, headers=key)
    assert (after_its_end.status_code, after_its_end.json()["reply"]) == (200, 3)


async def test_a_signal_that_is_sent_again_with_its_key_comes_once_for_each_who_sends_it(asked: Any) -> None:
    app, alice, run = asked
    key = {"idempotency-key": "once"}
    for person in (alice, alice, app.operator()):
        assert (await person.post(f"{run}/signals/other", "", headers=key)).status_code == 202
    sent = await app.service.database.read(lambda connection: connection.scalars(select(messages.c.name)).all())
    assert sent == ["other", "other"]
    await alice.post(f"{run}/signals/go-on", "", headers=key)
    for number in (1, 2):
        await alice.post(f"{run}/updates/ask", number)
    await alice.until(run.removeprefix("/v1/runs/"), "completed")
    after_its_end = await alice.post(f"{run}/signals/go-on", "", headers=key)
    new_one = await alice.post(f"{run}/signals/go-on", "", headers={"idempotency-key": "another"})
    assert (after_its_end.status_code, new_one.status_code) == (202, 409)


async def test_a_rejection_and_an_end_without_an_answer_are_read_as_rejected(asked: Any) -> None:
    _, alice, run = asked
    places = [(await alice.post(f"{run}/updates/ask", n, headers=AT_ONCE)).headers["location"] for n in (-1, 1, 2, 3)]
    await alice.post(f"{run}/signals/go-on", "")
    await alice.until(run.removeprefix("/v1/runs/"), "completed")
    answers = [(await alice.get(place)).json() for place in places]
    assert [each["status"] for each in answers] == ["rejected", "completed", "completed", "rejected"]
    assert [each["reply"] for each in answers] == ["must not be negative", 1, 3, "the run has completed"]


async def test_answers_are_for_those_who_may_see_the_run(asked: Any) -> None:
    app, alice, run = asked
    place = (await alice.post(f"{run}/updates/ask", 1, headers=AT_ONCE)).headers["location"]
    assert (await app.operator().get(place)).status_code == 200
    refused, unknown = await app.client("bob").get(place), await app.client("bob").get("/v1/updates/unknown")
    assert [each.status_code for each in (refused, unknown)] == [404, 404]
    assert refused.json()["type"] == unknown.json()["type"] == "urn:evs:problem:update-not-found"
