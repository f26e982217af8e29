"""Webhooks in: signed with a foreign library or as GitHub signs, and everything a stranger may try instead."""

import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook as Signer

from app_svc import incoming_webhooks
from app_svc.event_intake import EVENT_LIMIT_BYTES
from app_svc.json_pointer import find_pointer
from lib_events.testing import wait_until
from lib_events.webhooks.webhook import new_secret

HUB_SECRET = "It's a Secret to Everybody"


def welcome(number: int = 1, **more: Any) -> bytes:
    data = {"message": f"m{number}", "user": "zoe", "username": "zoe", "subject": "Hello"}
    return json.dumps(data | more).encode()


def standard_headers(secret: str, body: bytes, *, message_id: str = "msg_1", age: float = 0) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=age)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Signer(secret).sign(message_id, at, body.decode("latin-1")),
        "content-type": "application/json",
    }


def hub_headers(body: bytes, secret: str = HUB_SECRET) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()}


def sha1_of(body: bytes) -> str:
    return hmac.new(HUB_SECRET.encode(), body, "sha1").hexdigest()


async def configure(app: Any, name: str = "billing", **values: Any) -> dict[str, Any]:
    body = {"scheme": "standard-webhooks", "event_type": "welcome.message.sent", **values}
    answer = await app.operator().request("PUT", f"/v1/webhooks/in/{name}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def send(app: Any, body: bytes, headers: dict[str, str], name: str = "billing") -> Any:
    return await app.http.post(f"/v1/webhooks/in/{name}", content=body, headers=headers)


async def stored(app: Any) -> list[dict[str, Any]]:
    page = await app.operator().get("/v1/events", params={"types": "welcome.message.sent", "limit": 200})
    return page.json()["items"]


async def test_a_signed_request_becomes_an_event_before_it_is_thanked_for(any_app: Any) -> None:
    made = await configure(any_app, subject_pointer="/user")
    body = welcome()
    answer = await send(any_app, body, standard_headers(made["secret"], body))
    assert (answer.status_code, answer.json()["id"]) == (202, "msg_1")
    (event,) = await wait_until(lambda: stored(any_app))
    assert (event["source"], event["subject"], event["principal"]) == ("/webhooks/billing", "zoe", "olga")
    assert event["data"] == json.loads(body)


async def test_the_same_delivery_again_is_the_same_event(any_app: Any) -> None:
    made = await configure(any_app)
    body = welcome()
    for age in (0, 60):  # the sender signs each attempt anew
        answer = await send(any_app, body, standard_headers(made["secret"], body, age=age))
        assert (answer.status_code, answer.json()["id"]) == (202, "msg_1")
    other = welcome(2)
    assert (await send(any_app, other, standard_headers(made["secret"], other))).status_code == 409
    assert len(await wait_until(lambda: stored(any_app))) == 1


async def test_a_signature_as_github_makes_it_is_good_and_a_replay_changes_nothing(any_app: Any) -> None:
    await configure(any_app, scheme="hub-signature-256", secret=HUB_SECRET)
    body = welcome()
    # Nobody signed the delivery's header: a replay under another one is the same event.
    for delivery in ("72d3162e", "9f1c"):
        answer = await send(any_app, body, hub_headers(body) | {"x-github-delivery": delivery})
        assert answer.status_code == 202
    (event,) = await wait_until(lambda: stored(any_app))
    assert event["id"].startswith("sha256-")


def test_the_example_of_githubs_documentation_verifies() -> None:
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert incoming_webhooks.is_signed_hub(HUB_SECRET, {"x-hub-signature-256": signature}, b"Hello, World!")


async def test_a_pointer_says_where_the_id_is(app: Any) -> None:
    await configure(app, scheme="hub-signature-256", secret=HUB_SECRET, id_pointer="/message")
    body = welcome(5)
    assert (await send(app, body, hub_headers(body))).json()["id"] == "m5"
    await configure(app, scheme="hub-signature-256", secret=HUB_SECRET, id_pointer="/nowhere/0")
    answer = await send(app, body, hub_headers(body))
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:evs:problem:event-malformed")


async def test_a_wrong_signature_and_an_unknown_name_cannot_be_told_apart(app: Any) -> None:
    made = await configure(app)
    await configure(app, "hub", scheme="hub-signature-256", secret=HUB_SECRET)
    body = welcome()
    good = standard_headers(made["secret"], body)
    attempts = {
        "unknown name": ("nobody", body, good),
        "strange name": ("%00..", body, good),
        "no headers": ("billing", body, {}),
        "other secret": ("billing", body, standard_headers(new_secret(), body)),
        "other body": ("billing", body + b" ", good),
        "other id": ("billing", body, good | {"webhook-id": "msg_2"}),
        "other time": ("billing", body, good | {"webhook-timestamp": "1"}),
        "no time": ("billing", body, good | {"webhook-timestamp": "soon"}),
        "old": ("billing", body, standard_headers(made["secret"], body, age=301)),
        "from the future": ("billing", body, standard_headers(made["secret"], body, age=-305)),
        "not base64": ("billing", body, good | {"webhook-signature": "v1,=a="}),
        "no version": ("billing", body, good | {"webhook-signature": "abc"}),
        "too many commas": ("billing", body, good | {"webhook-signature": "v1,a,b"}),
        "not UTF-8": ("billing", b"\xff\xfe", good),
        "hub without": ("hub", body, {}),
        "hub wrong": ("hub", body, {"x-hub-signature-256": "sha256=" + "0" * 64}),
        "hub sha1": (
            "hub",
            body,
            {"x-hub-signature": "sha1=" + hmac.new(HUB_SECRET.encode(), body, "sha1").hexdigest()},
        ),
        "hub not ASCII": ("hub", body, {"x-hub-signature-256": "sha256=\u00e9"}),
        "scheme of another": ("hub", body, good),
    }
    answers = {}
    for what, (name, sent, headers) in attempts.items():
        raw = {key: value.encode("latin-1") for key, value in headers.items()}
        answer = await app.http.post(f"/v1/webhooks/in/{name}", content=sent, headers=raw)
        answers[what] = (answer.status_code, {**answer.json(), "instance": ""})
    first = answers["unknown name"]
    assert first[0] == 401
    assert {what: answer for what, answer in answers.items() if answer != first} == {}
    assert await stored(app) == []


async def test_a_body_that_does_not_fit_the_type_is_told_so_once_its_sender_is_known(app: Any) -> None:
    made = await configure(app)
    for body, code, kind in (
        (b'{"message": 1}', 422, "event-invalid-data"),
        (b"{not json", 400, "event-malformed"),
        (b"[]", 422, "event-invalid-data"),
    ):
        answer = await send(app, body, standard_headers(made["secret"], body))
        assert (answer.status_code, answer.json()["type"]) == (code, f"urn:evs:problem:{kind}")
    long_id = standard_headers(made["secret"], welcome(), message_id="m" * 201)
    assert (await send(app, welcome(), long_id)).status_code == 400
    assert await stored(app) == []


async def test_a_large_body_is_refused_and_a_flood_is_slowed_down(app: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(incoming_webhooks, "BURST", 3.0)
    monkeypatch.setattr(incoming_webhooks, "REQUESTS_PER_SECOND", 0.001)
    made = await configure(app)
    large = welcome(more="a" * EVENT_LIMIT_BYTES)
    assert (await send(app, large, standard_headers(made["secret"], large))).status_code == 413
    body = welcome()
    headers = standard_headers(made["secret"], body)
    # Somebody without the secret uses nothing of it up.
    strangers = [(await send(app, body, headers | {"webhook-id": "x"})).status_code for _ in range(5)]
    answers = [await send(app, body, headers) for _ in range(4)]
    assert strangers == [401] * 5
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert answers[-1].headers["retry-after"] == "1"


async def test_nobody_publishes_under_the_source_of_a_webhook(app: Any) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/webhooks/billing", "type": "welcome.message.sent"}
    answer = await app.client().request(
        "POST",
        "/v1/events",
        content=json.dumps(event | {"data": json.loads(welcome())}),
        headers={"content-type": "application/cloudevents+json"},
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/source")


async def test_operators_configure_and_the_secret_is_never_shown_again(app: Any) -> None:
    made = await configure(app)
    operator = app.operator()
    shown = (await operator.get("/v1/webhooks/in/billing")).json()
    listed = (await operator.get("/v1/webhooks/in")).json()["items"]
    assert (shown["secret"], [item["secret"] for item in listed]) == (None, [None])
    kept = await configure(app, subject_pointer="/user")  # the secret stays
    assert kept["secret"] is None
    body = welcome()
    assert (await send(app, body, standard_headers(made["secret"], body))).status_code == 202
    given = new_secret()
    assert (await configure(app, secret=given))["secret"] is None
    body = welcome(2)
    answer = await send(app, body, standard_headers(given, body, message_id="msg_2"))
    assert answer.status_code == 202
    assert (await operator.request("DELETE", "/v1/webhooks/in/billing")).status_code == 204
    assert (await operator.request("DELETE", "/v1/webhooks/in/billing")).status_code == 404
    assert (await send(app, body, standard_headers(given, body))).status_code == 401
    assert (await app.client().get("/v1/webhooks/in")).json()["role"] == "operator"


async def test_what_is_wrong_with_a_configuration_is_refused(app: Any, subtests: pytest.Subtests) -> None:
    for name, change in (
        ("Billing", {}),
        ("billing", {"event_type": "shop.unknown"}),
        ("billing", {"event_type": "evs.run.completed"}),
        ("billing", {"id_pointer": "message"}),
        ("billing", {"secret": "short"}),
        ("billing", {"secret": "whsec_this is not base64 at all"}),
        ("billing", {"scheme": "none"}),
        ("billing", {"scheme": "hub-signature-256"}),
    ):
        with subtests.test(name=name, change=change):
            if "scheme" in change:
                await configure(app)  # another scheme needs another secret
            body = {"scheme": "standard-webhooks", "event_type": "welcome.message.sent"} | change
            answer = await app.operator().request("PUT", f"/v1/webhooks/in/{name}", json=body)
            assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        # RFC 6901 section 5
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/m~0n", 8),
        ('/k"l', 6),
        ("/foo/2", None),
        ("/foo/-", None),
        ("/foo/00", None),
        ("/foo/bar", None),
        ("/a~1b/x", None),
    ],
)
def test_a_pointer_finds_what_the_rfc_says(pointer: str, found: Any) -> None:
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, 'k"l': 6, "m~n": 8}
    assert find_pointer(document, pointer) == found
