"""Webhooks over REST: one's own, shown without their secrets, bringing only what their owner may read."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from lib_auth.events import (
    ClientChangedData,
    ClientDisabled,
    ClientRemoved,
    UserChangedData,
    UserDeleted,
    UserDeletedData,
    UserDisabled,
    UserRolesChanged,
    UserRolesChangedData,
)
from lib_events.testing import wait_until
from lib_events.testing.receiver import receiving, status

ALICE_AS_A_CLIENT = ClientChangedData(client="alice", name="alice", origin="administrator")


@pytest.fixture
async def receiver() -> Any:
    async with receiving() as found:
        yield found


@pytest.fixture
async def hooked(make_settings: Any, issuer: Any, run_app: Any, database_url: str) -> Any:
    """An AppService whose webhooks may reach loopback, once on SQLite and once on PostgreSQL."""
    settings = make_settings(database_url, webhook_allow_private=["127.0.0.0/8"])
    async with run_app(settings, issuer) as running_app:
        yield running_app


def welcome(recipient: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": recipient,
        "source": "/tests",
        "type": "welcome.message.sent",
        "data": {"message": recipient, "user": recipient, "username": recipient, "subject": "Hello"},
    }


async def publish(client: Any, *recipients: str) -> None:
    headers = {"content-type": "application/cloudevents-batch+json"}
    body = json.dumps([welcome(recipient) for recipient in recipients])
    answer = await client.request("POST", "/v1/events", content=body, headers=headers)
    assert answer.status_code == 202, answer.text


async def add(client: Any, url: str, *types: str, **values: Any) -> dict[str, Any]:
    answer = await client.post("/v1/webhooks", {"url": url, "types": list(types or ("welcome.*",)), **values})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def test_a_webhook_brings_its_owner_their_own_events_signed(hooked: Any, receiver: Any) -> None:
    alice, bob = hooked.client(), hooked.client("bob")
    made = await add(alice, receiver.url)
    await publish(bob, "of-bob")
    await publish(alice, "first", "second")
    await wait_until(lambda: len(receiver.received) == 2)
    assert sorted(receiver.event_ids) == ["first", "second"]
    for received in receiver.received:
        told = Verifier(made["secret"]).verify(received.body, dict(received.headers))
        assert (told["specversion"], told["principal"]) == ("1.0", "alice")

    async def deliveries() -> Any:
        items = (await alice.get(f"/v1/webhooks/{made['id']}/deliveries")).json()["items"]
        return items if len(items) == 2 else None

    page = await wait_until(deliveries)
    assert sorted(item["event_id"] for item in page) == ["first", "second"]
    assert {(item["status"], item["error"], item["attempt"]) for item in page} == {(204, None, 1)}


async def test_an_operators_webhook_brings_everybodys_events_but_those_of_accounts(hooked: Any, receiver: Any) -> None:
    await add(hooked.operator(), receiver.url, "*")
    await hooked.hear(UserRolesChanged, UserRolesChangedData(user="zoe", username="zoe", roles=["member"]))
    await publish(hooked.client("bob"), "of-bob")
    await wait_until(lambda: "of-bob" in receiver.event_ids)
    assert {received.event.type for received in receiver.received} <= {"welcome.message.sent", "evs.webhook.created"}


async def test_a_role_that_is_taken_away_is_taken_from_the_webhook_too(hooked: Any, receiver: Any) -> None:
    await add(hooked.operator(), receiver.url)
    await publish(hooked.client("bob"), "before")
    await wait_until(lambda: receiver.event_ids == ["before"])
    await hooked.hear(UserRolesChanged, UserRolesChangedData(user="olga", username="olga", roles=["member"]))
    await wait_until(lambda: has_roles(hooked, ["member"]))
    await publish(hooked.client("bob"), "after")
    await publish(hooked.client("olga"), "own")
    await wait_until(lambda: "own" in receiver.event_ids)
    assert receiver.event_ids == ["before", "own"]


async def has_roles(app: Any, roles: list[str]) -> bool:
    from sqlalchemy import select

    from lib_events.tables import webhooks

    stored = await app.service.database.read(lambda connection: connection.scalar(select(webhooks.c.owner_roles)))
    return json.loads(stored) == roles


@pytest.mark.parametrize(
    ("event_type", "data", "why"),
    [
        (UserDisabled, UserChangedData(user="alice", username="alice"), "its owner was disabled"),
        (UserDeleted, UserDeletedData(user="alice"), "its owner was removed"),
        (ClientDisabled, ALICE_AS_A_CLIENT, "its owner was disabled"),
        (ClientRemoved, ALICE_AS_A_CLIENT, "its owner was removed"),
    ],
    ids=["a disabled person", "a deleted person", "a disabled client", "a removed client"],
)
async def test_who_is_gone_receives_nothing_more(
    hooked: Any, receiver: Any, event_type: Any, data: Any, why: str
) -> None:
    made = await add(hooked.client(), receiver.url)
    await hooked.hear(event_type, data)

    async def paused() -> bool:
        return (await hooked.operator().get(f"/v1/webhooks/{made['id']}")).json()["state"] == "paused"

    await wait_until(paused)
    shown = (await hooked.operator().get(f"/v1/webhooks/{made['id']}")).json()
    assert shown["reason"] == why


async def test_a_secret_is_shown_once_and_in_nothing_else(hooked: Any, receiver: Any, tmp_path: Path) -> None:
    alice = hooked.client()
    made = await add(alice, receiver.url)
    one = f"/v1/webhooks/{made['id']}"
    rotated = (await alice.post(one + "/rotate")).json()
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_until"] > rotated["changed_at"]
    await publish(alice, "signed-twice")
    await wait_until(lambda: receiver.received)
    for secret in (made["secret"], rotated["secret"]):
        Verifier(secret).verify(receiver.received[0].body, dict(receiver.received[0].headers))
    texts = [(await alice.get(path)).text for path in ("/v1/webhooks", one, one + "/deliveries")]
    texts += [(await hooked.admin().get("/v1/events", params={"types": "*", "limit": 200})).text]
    texts += [(await alice.post(one + verb)).text for verb in ("/pause", "/resume", "/test")]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("*.db*"))
    for secret in (made["secret"], rotated["secret"]):
        key = secret.removeprefix("whsec_")
        assert not any(key in text for text in texts)
        assert key.encode() not in stored


async def test_a_webhook_is_changed_paused_resumed_and_deleted(hooked: Any, receiver: Any) -> None:
    alice = hooked.client()
    made = await add(alice, receiver.url, subject="none")
    one = f"/v1/webhooks/{made['id']}"
    changed = await alice.request("PATCH", one, json={"subject": None, "types": ["welcome.message.sent"]})
    assert (changed.json()["subject"], changed.json()["types"]) == (None, ["welcome.message.sent"])
    assert changed.json()["url"] == receiver.url
    paused = (await alice.post(one + "/pause")).json()
    assert (paused["state"], paused["reason"]) == ("paused", "paused by alice")
    await publish(alice, "waits")
    assert (await alice.post(one + "/resume")).json()["state"] == "active"
    await wait_until(lambda: receiver.event_ids == ["waits"])
    assert (await alice.request("DELETE", one)).status_code == 204
    assert (await alice.get(one)).status_code == 404
    assert (await alice.request("DELETE", one)).status_code == 404


async def test_a_test_tells_status_and_duration(hooked: Any, receiver: Any) -> None:
    alice = hooked.client()
    made = await add(alice, receiver.url)
    good = (await alice.post(f"/v1/webhooks/{made['id']}/test")).json()
    assert (good["delivered"], good["status"], good["error"]) == (True, 204, None)
    assert good["duration_ms"] > 0
    receiver.answer = status(302, location="http://127.0.0.1:1/")
    bad = (await alice.post(f"/v1/webhooks/{made['id']}/test")).json()
    assert (bad["delivered"], bad["status"]) == (False, 302)
    assert "redirects are not followed" in bad["error"]
    assert receiver.received[0].event.type == "evs.webhook.tested"


async def test_an_interrupted_webhook_says_so(hooked: Any, receiver: Any) -> None:
    alice = hooked.client()
    receiver.answer = status(429, retry_after="300")
    made = await add(alice, receiver.url)
    await publish(alice, "too-much")

    async def interrupted() -> Any:
        shown = (await alice.get(f"/v1/webhooks/{made['id']}")).json()
        return shown if shown["state"] == "interrupted" else None

    shown = await wait_until(interrupted)
    assert shown["failures"] == 1
    assert shown["next_attempt_at"] > shown["created_at"]
    # Its event is tried again later; it is no dead letter.
    assert (await hooked.operator().get("/v1/dead-letters")).json()["items"] == []


async def test_a_strangers_webhook_is_as_if_it_did_not_exist_and_an_operator_sees_all(app: Any) -> None:
    alice, bob = app.client(), app.client("bob")
    made = await add(alice, "https://example.org/hook")
    one = f"/v1/webhooks/{made['id']}"
    assert (await bob.get("/v1/webhooks")).json()["items"] == []
    for method, path in (
        ("GET", one),
        ("PATCH", one),
        ("DELETE", one),
        ("POST", one + "/rotate"),
        ("POST", one + "/pause"),
        ("POST", one + "/resume"),
        ("POST", one + "/test"),
        ("GET", one + "/deliveries"),
    ):
        answer = await bob.request(method, path, json={} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:evs:problem:webhook-not-found"), path
    assert [item["id"] for item in (await app.operator().get("/v1/webhooks")).json()["items"]] == [made["id"]]
    assert (await app.operator().post(one + "/pause")).json()["reason"] == "paused by olga"


async def test_webhooks_come_in_pages_newest_first(app: Any) -> None:
    alice = app.client()
    made = [(await add(alice, f"https://example.org/{number}"))["id"] for number in range(5)]
    found, cursor = [], None
    while True:
        page = (await alice.get("/v1/webhooks", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made[::-1]


async def test_what_is_wrong_with_a_webhook_is_named(app: Any, subtests: pytest.Subtests) -> None:
    for body, pointer in (
        ({"url": "http://example.org", "types": ["*"]}, "/url"),
        ({"url": "https://127.0.0.1/", "types": ["*"]}, "/url"),
        ({"url": "https://169.254.169.254/", "types": ["*"]}, "/url"),
        ({"url": "https://me:secret@example.org/", "types": ["*"]}, "/url"),
        ({"url": "https://example.org:22/", "types": ["*"]}, "/url"),
        ({"url": "https://example.org/", "types": []}, "/types"),
        ({"url": "https://example.org/", "types": ["Shop.*"]}, "/types/0"),
        ({"url": "https://example.org/", "types": ["*.placed"]}, "/types/0"),
        ({"url": "https://example.org/", "types": ["*"], "subject": ""}, "/subject"),
        ({"url": "https://example.org/", "types": ["*"], "secret": "mine"}, "/secret"),
    ):
        with subtests.test(body=body, pointer=pointer):
            answer = await app.client().post("/v1/webhooks", body)
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_events_of_accounts_are_for_admins(app: Any) -> None:
    body = {"url": "https://example.org/", "types": ["evs.user.*"]}
    assert (await app.operator().post("/v1/webhooks", body)).json()["role"] == "admin"
    assert (await app.admin().post("/v1/webhooks", body)).status_code == 201


async def test_many_webhooks_deliver_side_by_side_while_one_hangs(hooked: Any, receiver: Any) -> None:
    alice = hooked.client()
    async with receiving() as slow:

        async def hang(_received: Any, _writer: Any) -> None:
            await asyncio.Event().wait()

        slow.answer = hang
        await add(alice, slow.url)
        for _ in range(5):
            await add(alice, receiver.url)
        await publish(alice, *(str(number) for number in range(20)))
        # One after the other, each of the twenty that hang would be given up first.
        await wait_until(lambda: len(receiver.received) == 100)


async def test_the_receiver_of_the_guide_receives(hooked: Any, free_port: int) -> None:
    example = Path(__file__).parents[3] / "examples" / "webhook_receiver.py"
    if not example.exists():
        pytest.skip("needs the whole workspace")
    alice = hooked.client()
    made = await add(alice, f"http://127.0.0.1:{free_port}/")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(example),
        str(free_port),
        env=os.environ | {"WEBHOOK_SECRET": made["secret"]},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None

    async def listens() -> bool:
        return (await alice.post(f"/v1/webhooks/{made['id']}/test")).json()["delivered"]

    await wait_until(listens)
    await publish(alice, "zoe")
    lines = [(await asyncio.wait_for(process.stdout.readline(), 20)).decode() for _ in range(2)]
    process.kill()
    await process.wait()
    assert lines[0].startswith("evs.webhook.tested")
    assert lines[1].startswith("welcome.message.sent {'message': 'zoe'")
