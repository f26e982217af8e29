"""A team moves here with the commands of the guide, and its people sign in with the passwords they have."""

import asyncio
import base64
import hashlib
import json
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli_proj.commands.admin_transfer import _merged, _parts
from cli_proj.demo.browser import Browser

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "moving.md"
PASSWORD = "correct horse battery staple"
SALT = b"0123456789abcdef"


def in_keycloak(password):
    value = hashlib.pbkdf2_hmac("sha512", password.encode(), SALT, 1000)
    secret = {"value": base64.b64encode(value).decode(), "salt": base64.b64encode(SALT).decode()}
    data = {"hashIterations": 1000, "algorithm": "pbkdf2-sha512", "additionalParameters": {}}
    return [{"type": "password", "secretData": json.dumps(secret), "credentialData": json.dumps(data)}]


REALM = {
    "realm": "acme",
    "defaultSignatureAlgorithm": "ES256",  # a key of another kind is nothing the others expect
    "roles": {"realm": [{"name": "clerk"}], "client": {"moved-shop": [{"name": "buyer"}]}},
    "groups": [{"name": "moved", "path": "/moved", "realmRoles": ["clerk"], "subGroups": []}],
    "clients": [
        {"clientId": "moved-shop", "secret": "s" * 32, "redirectUris": ["https://shop.example.org/cb"]},
        {"clientId": "moved-wild", "secret": "s" * 32, "redirectUris": ["https://wild.example.org/*"]},
    ],
    "users": [
        {
            "username": "moved.hal",
            "emailVerified": True,
            "email": "hal@moved.test",
            "groups": ["/moved"],
            "credentials": in_keycloak(PASSWORD),
        }
    ],
    "smtpServer": {"host": "mail.moved.test"},
}


def commands(text):
    """Every line of the guide's shell blocks that is a command of `evs`, without what a shell does with its output."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("evs ")]


async def sign_in(issuer, username):
    """Return the page that a right password leads to."""
    async with Browser() as browser:
        page = await browser.open(f"{issuer}/login")
        page = await browser.submit(page, page.form("/login"), {"username": username, "password": PASSWORD})
        return urlsplit(page.url).path


def test_the_commands_of_the_guide_move_people_who_then_sign_in(admin, tmp_path):
    if not GUIDE.exists():
        pytest.skip("needs the documentation: run it in the whole workspace")
    text = GUIDE.read_text()
    (people,) = re.findall(r'```json title="people.json"\n(.*?)```', text, re.DOTALL)
    (tmp_path / "people.json").write_text(people)
    (tmp_path / "realm.json").write_text(json.dumps(REALM))
    given = commands(text)
    assert given[0] == ["evs", "auth", "login", "--admin"], "as the fixture did"
    for command in given[1:]:
        words = command[1 : command.index(">")] if ">" in command else command[1:]
        arguments = [str(tmp_path / word) if word.endswith(".json") else word for word in words]
        done = admin.evs(*arguments)
        is_realm = arguments[2].endswith("realm.json")
        assert done.code == (1 if is_realm else 0), done.err
        assert ("1 refused, 1 left out" in done.err) is is_realm
        assert ("mail.moved.test" in done.out) is is_realm
    issuer = json.loads((admin.folder / ".evs" / "context.json").read_text())["auth_url"]
    assert asyncio.run(sign_in(issuer, "moved.hal")) == "/account"
    assert asyncio.run(sign_in(issuer, "grace")) == "/account"
    assert asyncio.run(sign_in(issuer, "ada")) == "/login/second", "she is asked for a code of her app"
    found = admin.evs("admin", "user", "show", "moved.hal", "-o", "json").json
    assert (found["groups"], found["effective_roles"]) == (["moved"], ["clerk", "member"])


def test_every_part_of_a_large_realm_names_the_accounts_of_its_clients():
    account = {"username": "service-account-x", "serviceAccountClientId": "x"}
    people = [{"username": f"u{number}"} for number in range(2_500)]
    parts = list(_parts({"realm": "acme", "users": [*people, account]}))
    assert [len(part["users"]) for part in parts] == [1001, 1001, 501]
    assert all(part["users"][-1] == account for part in parts)


def test_what_is_left_out_is_told_once_whatever_the_parts():
    mail, shoe = ({"kind": kind, "name": "x", "why": "y"} for kind in ("mail server", "attributes"))
    part = {"counts": {"created": 1}, "items": [{"kind": "user", "outcome": "created"}], "left_out": [mail]}
    whole = _merged(_merged({}, part), part | {"left_out": [mail, shoe]})
    assert whole["left_out"] == [mail, shoe]
    assert whole["counts"] == {"created": 2}
