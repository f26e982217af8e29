"""The admin API describes itself, and whatever is sent to any of its operations is answered, never with a failure."""

import json
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator

from auth_svc.api.openapi import operations

SENT = 5  # of each list, beside what only PostgreSQL refuses
PROBLEM = "application/problem+json"
NASTY = ["a\0b", "%", "'", '"', "\\", "😀", "x" * 300, "../..", "é\u202e", "null", "1e999", "-1", ";--", ""]
WRONG = [None, True, -1, 2**70, 1.5, "", "x" * 3_000, "😀", [], [None], ["\0"], [[]], {}, {"": ""}, {"\0": "\0"}]
NONE = dict.fromkeys(("session", "client", "delegation", "invitation", "key", "token", "upstream"), "none")
THINGS = NONE | {"user": "ada", "group": "g", "role": "drawer", "resource": "maps"}


@pytest.fixture
async def document(provider):
    return (await provider.http.get("/openapi.json")).json()


def administrative(document):
    return [found for found in operations(document) if found[0].startswith("/v1/admin")]


def body_example(document, operation):
    """The example of an operation's body, or None where it takes none."""
    if "requestBody" not in operation:
        return None
    content = operation["requestBody"]["content"]["application/json"]
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    return content["example"] if "example" in content else document["components"]["schemas"][name]["examples"][0]


async def test_every_operation_says_what_it_does_takes_and_answers(document, subtests):
    assert len(administrative(document)) >= 35
    for path, operation, method in administrative(document):
        with subtests.test(f"{method} {path}"):
            assert len(operation["summary"]) > 8
            assert operation["summary"] != operation["operationId"]
            assert operation["security"] == [{"signIn": ["admin"]}]
            assert {"401", "403", "422", "503"} <= operation["responses"].keys()
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert response["content"].keys() == {PROBLEM}
                    assert response["content"][PROBLEM]["example"]["status"] == int(status)
                elif status != "204":
                    schema = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                    assert document["components"]["schemas"][schema]["examples"]
            if "requestBody" in operation:
                assert body_example(document, operation)


async def test_every_example_is_one(document, subtests):
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        for example in schema.get("examples", ()):
            with subtests.test(name):
                Draft202012Validator({**schema, "components": document["components"]}).validate(example)


@pytest.mark.timeout(300)
async def test_whatever_is_sent_to_any_operation_is_answered_as_described(provider_on_both, draw):
    provider = provider_on_both
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    document = (await provider.http.get("/openapi.json")).json()

    async def send(operation, method, path, **parts):
        answer = await provider.http.request(method, path, headers=headers | parts.pop("headers", {}), **parts)
        asked = (method, path, parts)
        assert str(answer.status_code) in operation["responses"], (asked, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == PROBLEM, asked
            assert answer.json()["detail"], asked
        return answer

    for body, path in (
        ({"id": "maps", "identifier": "urn:maps", "name": "Maps", "permissions": {"maps:draw": ""}}, "resources"),
        ({"name": "drawer", "permissions": ["maps:draw"]}, "roles"),
        ({"name": "g", "roles": ["drawer"]}, "groups"),
    ):
        assert (await provider.http.post(f"/v1/admin/{path}", json=body, headers=headers)).status_code == 201
    found = administrative(document)
    for path, operation, method in sorted(found, key=lambda item: item[2] == "delete"):
        example = body_example(document, operation)
        await _send_parameters(send, draw, path, operation, method=method, body=example)
    for path, operation, method in found:
        if (example := body_example(document, operation)) is not None:
            await _send_bodies(send, draw, path.format(**THINGS), operation, method=method, example=example)


async def _send_parameters(send, draw, path, operation, *, method, body):
    for parameter in operation.get("parameters", ()):
        for value in ("\0", *draw.some(NASTY, SENT)):
            if parameter["in"] == "query":
                query = {parameter["name"]: value}
                await send(operation, method, path.format(**THINGS), params=query, json=body)
            elif value not in ("", "../.."):  # those are other paths
                things = {name: quote(thing, safe="") for name, thing in (THINGS | {parameter["name"]: value}).items()}
                await send(operation, method, path.format(**things), json=body)


async def _send_bodies(send, draw, path, operation, *, method, example):
    for field in example:
        for value in ("\0", *draw.some(WRONG, SENT)):
            await send(operation, method, path, json=example | {field: value})
        await send(operation, method, path, json={name: example[name] for name in example if name != field})
    for content in (b"", b"{", b"null", b"[]", b'"\\ud800"', b"\xff", b"[" * 50_000, json.dumps(WRONG[:2]).encode()):
        await send(operation, method, path, content=content, headers={"content-type": "application/json"})
