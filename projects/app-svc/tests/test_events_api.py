"""Events over REST, read and published, as programs use them."""

import asyncio
import json
import uuid
from typing import Any

from lib_events.testing import wait_until


async def test_events_come_in_pages_without_gaps(app: Any) -> None:
    alice = app.client()
    run = await alice.run("order", {})
    await wait_until(lambda: alice.ended_event(run["id"]))
    whole = (await alice.get("/v1/events", params={"limit": 200})).json()
    assert whole["next_cursor"] is None
    found, after = [], None
    while True:
        page = (await alice.get("/v1/events", params={"limit": 3} | ({"after": after} if after else {}))).json()
        found += page["items"]
        after = page["next_cursor"]
        if after is None:
            break
    assert found == whole["items"]
    assert len(found) > 6


async def test_a_member_reads_the_events_of_their_own_runs_only(app: Any) -> None:
    alice, bob, operator = app.client("alice"), app.client("bob"), app.operator()
    run = await alice.run("order", {})
    await wait_until(lambda: alice.ended_event(run["id"]))
    assert (await bob.get("/v1/events")).json()["items"] == []
    assert (await operator.get("/v1/events")).json()["items"] != []


async def test_events_of_accounts_are_for_admins(app: Any) -> None:
    from lib_auth.events import SessionStarted, SessionStartedData
    from lib_events.event import Event

    payload = SessionStartedData(session="s", user="u")
    event = Event.of(SessionStarted, payload, source="/auth-svc", subject="s")
    await app.service.database.transact(lambda connection: connection.publish(event))
    admin, operator = app.admin(), app.operator()

    async def is_there() -> Any:
        return (await admin.get("/v1/events", params={"types": "evs.session.*"})).json()["items"]

    await wait_until(is_there)
    assert (await operator.get("/v1/events")).json()["items"] == []
    for types in ("evs.session.started", "evs.user.*", "order.*,evs.token.revoked"):
        assert (await operator.get("/v1/events", params={"types": types})).status_code == 403


# Publishing


def cloud_event(**changes: Any) -> dict[str, Any]:
    data = {"message": "m", "user": "u", "username": "n", "subject": "s"}
    event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "/shop", "type": "welcome.message.sent"}
    return {key: value for key, value in (event | {"data": data} | changes).items() if value is not None}


async def publish(client: Any, body: Any, content_type: str = "application/cloudevents+json") -> Any:
    headers = {"content-type": content_type}
    return await client.request("POST", "/v1/events", content=json.dumps(body).encode(), headers=headers)


async def test_an_event_is_published_in_all_three_modes(any_app: Any) -> None:
    alice = any_app.client()
    structured = cloud_event(correlationid="story", principal="mallory")
    assert (await publish(alice, structured)).status_code == 202
    batch = [cloud_event(), cloud_event()]
    assert len((await publish(alice, batch, "application/cloudevents-batch+json")).json()["accepted"]) == 2
    headers = {"ce-specversion": "1.0", "ce-id": "b1", "ce-source": "/shop%20a", "ce-type": "welcome.message.sent"}
    binary = await alice.post("/v1/events", cloud_event()["data"], headers=headers)
    assert binary.json()["accepted"] == [{"id": "b1", "source": "/shop a", "type": "welcome.message.sent"}]

    async def all_four() -> Any:
        found = (await alice.get("/v1/events", params={"types": "welcome.*"})).json()["items"]
        return found if len(found) == 4 else None

    found = await wait_until(all_four)
    assert (found[0]["correlationid"], found[0]["principal"]) == ("story", "alice")


async def test_the_same_event_again_changes_nothing_and_another_under_its_id_is_refused(any_app: Any) -> None:
    alice, bob = any_app.client(), any_app.client("bob")
    event = cloud_event()
    assert [(await publish(alice, event)).status_code for _ in range(3)] == [202, 202, 202]
    changed = event | {"data": event["data"] | {"message": "other"}}
    for client, body in ((alice, changed), (bob, event)):
        answer = await publish(client, body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:evs:problem:event-conflict")
    both = [cloud_event(id="twice"), cloud_event(id="twice")]
    assert (await publish(alice, both, "application/cloudevents-batch+json")).status_code == 202


async def test_the_same_event_published_by_many_at_once_is_stored_once(any_app: Any) -> None:
    alice = any_app.client()
    for _ in range(5):
        event = cloud_event()
        answers = await asyncio.gather(*(publish(alice, event) for _ in range(12)))
        assert {answer.status_code for answer in answers} == {202}

    async def all_five() -> Any:
        found = (await alice.get("/v1/events", params={"types": "welcome.*"})).json()["items"]
        return len(found) == 5

    await wait_until(all_five)


async def test_events_that_may_not_come_in_are_refused_with_the_reason(app: Any) -> None:
    alice = app.client()
    cases = [
        (cloud_event(type="evs.run.completed"), 403, "reserved-type", "/type"),
        (cloud_event(type="evs.approval.decided"), 403, "reserved-type", "/type"),
        (cloud_event(type="evs"), 422, "unknown-type", ""),
        (cloud_event(type="nobody.knows"), 422, "unknown-type", ""),
        (cloud_event(data={"message": 1}), 422, "invalid-data", "/data"),
        (cloud_event(source="/auth-svc"), 400, "malformed", "/source"),
        (cloud_event(source="auth-svc/x"), 400, "malformed", "/source"),
        (cloud_event(specversion="0.3"), 400, "malformed", "/specversion"),
        (cloud_event(id=None), 400, "malformed", "/id"),
        (cloud_event(time="yesterday"), 400, "malformed", "/time"),
        (cloud_event(Bad_Name="x"), 400, "malformed", "/Bad_Name"),
        (cloud_event(subject="a\0b"), 400, "malformed", "/subject"),
        (cloud_event(datacontenttype="text/xml", data="<x/>"), 415, "unsupported-content", "/datacontenttype"),
        ([], 400, "malformed", ""),
    ]
    for body, status, name, pointer in cases:
        answer = await publish(alice, body)
        found = answer.json()
        assert (answer.status_code, found["type"]) == (status, f"urn:evs:problem:event-{name}"), body
        assert found["errors"][0]["pointer"].startswith(pointer), body
    for content_type in ("text/plain", "application/cloudevents+avro"):
        answer = await publish(alice, cloud_event(), content_type)
        assert (answer.status_code, answer.json()["type"]) == (415, "urn:evs:problem:event-unsupported-content")
    broken = await alice.request(
        "POST", "/v1/events", content=b"{", headers={"content-type": "application/cloudevents+json"}
    )
    assert broken.status_code == 400


async def test_one_bad_event_of_a_batch_keeps_the_whole_batch_out_and_is_named(app: Any) -> None:
    alice = app.client()
    batch = [cloud_event(), cloud_event(type="nobody.knows")]
    answer = await publish(alice, batch, "application/cloudevents-batch+json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/1")
    assert (await alice.get("/v1/events", params={"types": "welcome.*"})).json()["items"] == []


async def test_the_events_are_described_with_their_ways_and_versions(app: Any) -> None:
    document = (await app.http.get("/asyncapi.json")).json()
    messages, operations = document["components"]["messages"], document["operations"]
    assert messages["order.payment.captured"]["x-contract-version"] == 1
    assert operations["receive.evs.user.registered"]["channel"]["$ref"].startswith("#/channels/events.auth-svc.")
    published = {found["$ref"].rpartition("/")[2] for found in operations["receive.publish"]["messages"]}
    assert "welcome.message.sent" in published
    assert not any(name.startswith("evs.") for name in published)
    assert "evs.run.progressed" in document["channels"]["run"]["messages"]
    assert operations["send.feed"]["security"][0]["openIdConnectUrl"].startswith(app.issuer.url)
