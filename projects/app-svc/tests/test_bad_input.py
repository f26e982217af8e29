"""Bad input: each gives a clear, typed problem document with what to do next; nothing is lost and nothing hangs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app_svc.page import encode_cursor

PROBLEM = "application/problem+json"


def problem_of(answer: Any, status: int, name: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["type"] == f"urn:evs:problem:{name}", body
    assert body["detail"]
    assert body["instance"] == f"urn:evs:request:{answer.headers['x-request-id']}"
    return body


async def test_an_unknown_workflow_is_named_with_those_there_are(app: Any) -> None:
    answer = await app.client().post("/v1/runs", {"workflow": "nonsense", "input": {}})
    body = problem_of(answer, 422, "unknown-workflow")
    assert "import-table, order" in body["detail"]
    problem_of(await app.client().get("/v1/workflows/nonsense"), 404, "unknown-workflow")


async def test_input_that_does_not_fit_its_schema_names_the_field(app: Any, subtests: pytest.Subtests) -> None:
    for value, pointer in (
        ({"quantity": 0}, "/input/quantity"),
        ({"quantity": "many"}, "/input/quantity"),
        ({"card": "tok_unknown"}, "/input/card"),
        ({"hold_after": "lunch"}, "/input/hold_after"),
        ({"extra": 1}, "/input/extra"),
        ([], "/input"),
        (None, "/input"),
    ):
        with subtests.test(value=value, pointer=pointer):
            body = problem_of(
                await app.client().post("/v1/runs", {"workflow": "order", "input": value}), 422, "invalid-input"
            )
            assert body["errors"][0]["pointer"] == pointer
            assert pointer in body["detail"]


async def test_every_field_at_fault_is_named_and_nothing_sent_is_repeated(app: Any) -> None:
    value = {"quantity": -5, "card": "4242424242424242"}
    answer = await app.client().post("/v1/runs", {"workflow": "order", "input": value})
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/input/quantity", "/input/card"}
    assert "4242424242424242" not in answer.text


async def test_the_place_in_a_batch_is_named_and_nothing_of_it_is_started(app: Any) -> None:
    alice = app.client()
    runs = [{"workflow": "order", "input": {}}, {"workflow": "order", "input": {"quantity": 0}}]
    body = problem_of(await alice.post("/v1/runs:batch", {"runs": runs}), 422, "invalid-input")
    assert body["errors"][0]["pointer"] == "/runs/1/input/quantity"
    runs[1] = {"workflow": "nonsense"}
    body = problem_of(await alice.post("/v1/runs:batch", {"runs": runs}), 422, "unknown-workflow")
    assert body["errors"][0]["pointer"] == "/runs/1/workflow"
    assert (await alice.get("/v1/runs")).json()["items"] == []


async def test_a_start_that_is_not_valid_names_the_field(app: Any, subtests: pytest.Subtests) -> None:
    for body, pointer in (
        ({"workflow": "order", "input": {}, "id": "no spaces"}, "/id"),
        ({"workflow": "order", "input": {}, "id": ".."}, "/id"),
        ({"workflow": "order", "input": {}, "tags": {"a b": "x"}}, "/tags/a b/[key]"),
        ({"workflow": "order", "input": {}, "deadline": "tomorrow"}, "/deadline"),
        ({"workflow": "order", "input": {}, "delay_seconds": -1}, "/delay_seconds"),
        ({"workflow": "order", "input": {}, "reply_to": "http://x"}, "/reply_to"),
        ({"workflow": "order", "input": {}, "surprise": 1}, "/surprise"),
        ({"input": {}}, "/workflow"),
    ):
        with subtests.test(body=body, pointer=pointer):
            found = problem_of(await app.client().post("/v1/runs", body), 422, "invalid-input")
            assert found["errors"][0]["pointer"] == pointer


async def test_a_body_that_is_no_json_is_told_why(app: Any, subtests: pytest.Subtests) -> None:
    for content, why in (
        (b"{oops", "line 1 column 2"),
        (b'{"workflow": "order", "input": {"hold_seconds": NaN}}', "line 1 column 4"),
        (b'{"workflow": "order", "input": "\\ud800"}', "hex escape"),
        (b"[" * 100_000, "recursion"),
        (b'{"workflow": "\xff"}', "unicode"),
    ):
        with subtests.test(content=content, why=why):
            headers = {"content-type": "application/json"}
            answer = await app.client().request("POST", "/v1/runs", content=content, headers=headers)
            body = problem_of(answer, 422, "invalid-input")
            assert body["detail"].startswith("body must be JSON (RFC 8259): ")
            assert why in body["detail"]


async def test_a_body_of_another_media_type_is_told_which_to_send(app: Any) -> None:
    alice = app.client()
    content = b'{"workflow": "order", "input": {}}'
    for sent in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = await alice.request("POST", "/v1/runs", content=content, headers={"content-type": sent})
        assert "application/json" in problem_of(answer, 415, "not-json")["detail"]
    headers = {"content-type": "application/json; charset=utf-8"}
    assert (await alice.request("POST", "/v1/runs", content=content, headers=headers)).status_code == 202


async def test_a_body_of_ten_megabytes_is_too_large_announced_or_not(app: Any) -> None:
    alice = app.client()
    body = json.dumps({"workflow": "import-table", "input": {"name": "x", "data": "a" * 10_000_000}}).encode()
    headers = {"content-type": "application/json"}
    answer = await alice.request("POST", "/v1/runs", content=body, headers=headers)
    assert problem_of(answer, 413, "body-too-large")["limit_bytes"] == 8 * 1024 * 1024

    async def pieces() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    answer = await alice.request("POST", "/v1/runs", content=pieces(), headers=headers)
    problem_of(answer, 413, "body-too-large")


async def test_an_input_that_no_history_can_hold_is_too_large(app: Any) -> None:
    value = {"name": "x", "data": "a,b\n" + "1,2\n" * 1_200_000}
    answer = await app.client().post("/v1/runs", {"workflow": "import-table", "input": value})
    assert "4194304 bytes" in problem_of(answer, 413, "input-too-large")["detail"]


async def test_a_message_that_no_history_can_hold_is_too_large(app: Any) -> None:
    alice, admin = app.client(), app.admin()
    run_id = (await alice.post("/v1/runs", {"workflow": "order", "input": {"hold_seconds": 600}})).json()["id"]
    large = "x" * 5_000_000
    for path in (f"/v1/runs/{run_id}/signals/s", f"/v1/runs/{run_id}/updates/u"):
        problem_of(await alice.post(path, large), 413, "payload-too-large")
    decision = {"approved": True, "form": {"a": "x" * 100_000}}
    problem_of(await admin.post("/v1/approvals/none/decision", decision), 413, "form-too-large")


async def test_what_does_not_exist_is_a_problem_document(app: Any) -> None:
    alice = app.client()
    problem_of(await alice.get("/v1/runs/none"), 404, "run-not-found")
    problem_of(await alice.get("/v1/approvals/none"), 404, "approval-not-found")
    run = await alice.run("order", {})
    problem_of(await alice.get(f"/v1/runs/{run['id']}/views/none"), 404, "view-not-found")
    for method, path in (("GET", "/v1/nothing"), ("DELETE", "/v1/runs"), ("GET", "/")):
        answer = await alice.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) in ((404, PROBLEM), (405, PROBLEM))


async def test_a_cursor_of_another_list_is_refused(app: Any) -> None:
    alice = app.client()
    for path in ("/v1/runs", "/v1/approvals"):
        problem_of(await alice.get(path, params={"cursor": "nonsense"}), 422, "invalid-cursor")
    for cursor in ("nonsense", "1.999999"):
        problem_of(await alice.get("/v1/events", params={"after": cursor}), 422, "invalid-cursor")
    problem_of(await alice.get("/v1/events", params={"after": "9.1"}), 410, "cursor-gone")


async def test_a_command_that_comes_too_late_says_what_the_run_is(app: Any) -> None:
    alice = app.client()
    run = await alice.run("order", {})
    for command in ("cancel", "retry", "signals/x"):
        body = problem_of(await alice.post(f"/v1/runs/{run['id']}/{command}"), 409, "run-status")
        assert body["status_of_run"] == "completed"


async def test_one_id_means_one_run(app: Any) -> None:
    alice = app.client()
    first = await alice.post("/v1/runs", {"workflow": "order", "input": {"quantity": 2}, "id": "same"})
    again = await alice.post("/v1/runs", {"workflow": "order", "input": {"quantity": 2}, "id": "same"})
    assert first.json()["id"] == again.json()["id"] == "same"
    other = await alice.post("/v1/runs", {"workflow": "order", "input": {"quantity": 3}, "id": "same"})
    problem_of(other, 409, "run-conflict")


async def test_an_idempotency_key_that_stands_for_another_id_is_taken(app: Any) -> None:
    alice = app.client()
    headers = {"idempotency-key": "k1"}
    body = {"workflow": "order", "input": {}}
    await alice.post("/v1/runs", body | {"id": "one"}, headers=headers)
    assert (await alice.post("/v1/runs", body | {"id": "one"}, headers=headers)).json()["id"] == "one"
    answer = await alice.post("/v1/runs", body | {"id": "two"}, headers=headers)
    assert "idempotency key 'k1' is taken" in problem_of(answer, 409, "run-conflict")["detail"]


async def test_a_fork_under_the_id_of_another_run_is_refused_without_its_content(app: Any) -> None:
    alice, bob, operator = app.client("alice"), app.client("bob"), app.operator()
    await alice.run("order", {}, id="source")
    await alice.run("order", {}, id="mine")
    await bob.run("order", {}, id="bobs")
    for client, taken in ((alice, "mine"), (alice, "bobs"), (operator, "bobs")):
        problem_of(await client.post("/v1/runs/source/fork", {"id": taken}), 409, "run-conflict")
    again = [await alice.post("/v1/runs/source/fork", {"id": "new"}) for _ in range(2)]
    assert [answer.json()["forked_from"] for answer in again] == ["source", "source"]


async def test_an_idempotency_key_is_everybodys_own(app: Any) -> None:
    alice, bob = app.client("alice"), app.client("bob")
    headers = {"idempotency-key": "k1"}
    body = {"workflow": "order", "input": {}}
    first = (await alice.post("/v1/runs", body, headers=headers)).json()["id"]
    assert (await alice.post("/v1/runs", body, headers=headers)).json()["id"] == first
    assert (await bob.post("/v1/runs", body, headers=headers)).json()["id"] != first
    changed = {"workflow": "order", "input": {"quantity": 2}}
    problem_of(await alice.post("/v1/runs", changed, headers=headers), 409, "run-conflict")


async def test_a_request_for_another_host_is_misdirected(app: Any) -> None:
    answer = await app.client().get("/v1/workflows", headers={"host": "evil.example"})
    assert answer.status_code == 421


async def test_only_named_origins_may_read_answers(run_app: Any, make_settings: Any, issuer: Any) -> None:
    async with run_app(make_settings(cors_origins=["https://good.example"]), issuer) as app:
        for origin, allowed in (("https://good.example", "https://good.example"), ("https://evil.example", None)):
            answer = await app.client().get("/v1/workflows", headers={"origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed
            asked = {"origin": origin, "access-control-request-method": "POST"}
            preflight = await app.http.options("/v1/runs", headers=asked)
            assert preflight.headers.get("access-control-allow-origin") == allowed


async def test_without_origins_there_is_no_cors(app: Any) -> None:
    answer = await app.client().get("/v1/workflows", headers={"origin": "https://good.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_full_disk_is_told_and_nothing_of_it_is_half_done(app: Any) -> None:
    alice = app.client()
    done = await alice.run("order", {})
    raw = app.service.database._raw
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    raw.execute(f"PRAGMA max_page_count = {pages}")
    value = {"name": "big", "data": "a,b\n" + "1,2\n" * 100_000}
    answer = await alice.post("/v1/runs", {"workflow": "import-table", "input": value})
    assert "full" in problem_of(answer, 503, "try-again")["detail"]
    raw.execute("PRAGMA max_page_count = 1000000")
    assert [run["id"] for run in (await alice.get("/v1/runs")).json()["items"]] == [done["id"]]
    assert (await alice.run("order", {}))["status"] == "completed"


NASTY = ["\0", "a\0b", "%", "'", '"', "\\", "😀", "x" * 300, "../..", "é\u202e", "null", "1e999", "-1", ";--"]


async def test_no_text_in_a_path_or_query_makes_the_service_fail(any_app: Any) -> None:
    operator = any_app.operator()
    run = await operator.run("order", {}, tags={"team": "a"})
    parameters = {
        "/v1/runs": ["status", "workflow", "tag", "q", "since", "mine", "cursor", "limit", "parent"],
        f"/v1/runs/{run['id']}/history": ["cursor", "limit"],
        "/v1/approvals": ["status", "run", "cursor", "limit"],
        "/v1/events": ["types", "subject", "correlation", "after", "limit"],
        "/v1/dead-letters": ["cursor", "limit"],
    }
    cursors = [encode_cursor(2**70), encode_cursor(2**70, "x"), encode_cursor(1, "\0"), encode_cursor(1)]
    for path, names in parameters.items():
        for name in names:
            for value in NASTY + (cursors if name == "cursor" else []):
                answer = await operator.get(path, params={name: value})
                assert answer.status_code < 500, (path, name, value)
    templates = ["/v1/workflows/{}", "/v1/runs/{}", f"/v1/runs/{run['id']}/views/{{}}", "/v1/approvals/{}"]
    for template in templates:
        for value in NASTY:
            answer = await operator.get(template.format(quote(value, safe="")))
            assert answer.status_code < 500, (template, value)


async def test_no_text_in_a_body_makes_the_service_fail(any_app: Any) -> None:
    operator, admin = any_app.operator(), any_app.admin()
    held = await operator.post("/v1/runs", {"workflow": "order", "input": {"hold_seconds": 600}})
    run_id = held.json()["id"]
    for value in [*NASTY, "\ud800"]:
        order = {"workflow": "order", "input": {"address": value}}
        bodies = [
            ("/v1/runs", order),
            ("/v1/runs", order | {"tags": {"a": value}}),
            ("/v1/runs", order | {"queue": value}),
            ("/v1/runs", order | {"workflow": value}),
            ("/v1/runs:batch", {"runs": [order]}),
            ("/v1/runs:cancel", {"filter": {"q": value}, "dry_run": True}),
            (f"/v1/runs/{run_id}/signals/x", {"a": value}),
            (f"/v1/runs/{run_id}/fork", {"from_step": value}),
            ("/v1/approvals/none/decision", {"approved": True, "comment": value, "form": {"a": value}}),
        ]
        for path, body in bodies:
            content = json.dumps(body).encode()
            headers = {"content-type": "application/json"}
            answer = await admin.request("POST", path, content=content, headers=headers)
            assert answer.status_code < 500, (path, body, answer.text)
        data = {"message": value, "user": "u", "username": "n", "subject": "s"}
        event = {"specversion": "1.0", "id": "i", "source": "/s", "type": "welcome.message.sent", "data": data}
        for changed in (event, event | {"id": value}, event | {"subject": value}, event | {"correlationid": value}):
            headers = {"content-type": "application/cloudevents+json"}
            answer = await admin.request("POST", "/v1/events", content=json.dumps(changed).encode(), headers=headers)
            assert answer.status_code < 500, (changed, answer.text)
    listed = await admin.get("/v1/runs", params={"tag": "a:x"})
    assert listed.status_code == 200


# Starting

DOORBELL = """
from dataclasses import dataclass
from lib_workflows import Context, EventType, workflow

@dataclass
class Bell:
    {fields}

Rang = EventType("house.bell.rang", Bell)

@workflow(name="doorbell")
async def answer(ctx: Context, bell: Bell) -> None: ...
"""


def start(*arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "app_svc", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean | environment, check=False)
    return found.returncode, found.stderr


def test_a_worker_on_sqlite_is_refused_with_the_reason(tmp_path: Path) -> None:
    code, said = start("worker", "--data", str(tmp_path / "d"))
    assert code == 1
    assert "app-svc worker needs PostgreSQL: a SQLite file has one engine process" in said


def test_a_taken_port_names_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = start("--data", str(tmp_path / "d"), "--port", port)
    assert (code, f"port {port} must be free" in said, "--port or EVS_APP_PORT" in said) == (1, True, True)


def test_workflows_that_do_not_load_are_named(tmp_path: Path) -> None:
    code, said = start("--data", str(tmp_path / "d"), "--port", "0", "--workflows", "absent_flow.py")
    assert (code, "must name a file that exists, got absent_flow.py" in said) == (1, True)


async def test_an_event_type_may_gain_an_optional_field_and_nothing_else(
    make_settings: Any, run_app: Any, issuer: Any, tmp_path: Path
) -> None:
    flow = tmp_path / "doorbell_that_grows.py"
    for version, fields in enumerate(("tone: str", "tone: str\n    pitch: int = 0"), start=1):
        flow.write_text(DOORBELL.format(fields=fields))
        async with run_app(make_settings(workflows=[str(flow)]), issuer) as app:
            assert app.service.contracts["house.bell.rang"] == version
            rang = {"specversion": "1.0", "id": str(version), "source": "/door", "type": "house.bell.rang"}
            headers = {"content-type": "application/cloudevents+json"}
            body = json.dumps(rang | {"data": {"tone": "ding"}})
            sent = await app.client("alice").request("POST", "/v1/events", content=body, headers=headers)
            assert sent.status_code == 202, sent.text
        del sys.modules[flow.stem]
    flow.write_text(DOORBELL.format(fields="tone: int\n    pitch: int = 0"))
    code, said = start("--data", str(tmp_path / "data"), "--port", "0", "--workflows", str(flow))
    assert (code, "app-svc: event type 'house.bell.rang' must stay compatible with version 2" in said) == (1, True)
    assert ("data.tone has changed type" in said, "Traceback" in said) == (True, False)


def test_a_data_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = start("--data", str(tmp_path / "file" / "d"), "--port", "0")
    assert (code, "data folder must be writable" in said) == (1, True)


async def test_a_second_service_on_the_same_data_is_refused(app: Any) -> None:
    import asyncio

    code, said = await asyncio.to_thread(start, "--data", str(app.service.settings.data), "--port", "0")
    assert code == 1
    assert "is in use by process" in said
