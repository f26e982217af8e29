"""People sign in from a terminal, through the AuthService's real pages."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from cli_proj.demo.browser import Browser

ADMIN_PASSWORD = "a very long administrator password"  # of the fixture `product`
PASSWORD = "correct horse battery staple"
URL = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Visitor:
    username: str
    password: str


def urls_of(shell) -> dict[str, str]:
    return shell.evs("status", "--json").json["urls"]


@pytest.fixture
def visitor(product) -> Visitor:
    somebody = Visitor(f"kim-{uuid.uuid4().hex[:8]}", PASSWORD)

    async def register() -> None:
        async with Browser() as browser:
            page = await browser.open(urls_of(product)["auth"] + "/register")
            values = {"username": somebody.username, "password": somebody.password}
            page = await browser.submit(page, page.form("/register"), values)
            assert somebody.username in page.text

    asyncio.run(register())
    return somebody


def read_url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := URL.search(line):
            return found[0]
    raise AssertionError(f"evs auth login must print a URL, ended with {process.wait()}")


def allow_device(url: str, visitor: Visitor) -> None:
    async def go() -> None:
        async with Browser() as browser:
            page = await browser.open(url)
            values = {"username": visitor.username, "password": visitor.password}
            page = await browser.submit(page, page.form("/login"), values)
            while "decision" not in dict(page.form("/device").buttons):
                page = await browser.submit(page, page.form("/device"), {})
            await browser.submit(page, page.form("/device"), {"decision": "allow"})

    asyncio.run(go())


def sign_in(shell, visitor: Visitor, *options: str) -> None:
    process = shell.start("auth", "login", "--device", "--insecure-storage", *options)
    allow_device(read_url(process), visitor)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert visitor.username in err


def test_a_person_signs_in_with_a_code_acts_and_signs_out(person, visitor):
    sign_in(person, visitor)
    status = person.evs("auth", "status", "-o", "json").json
    assert (status["user"], status["client"], status["roles"]) == (visitor.username, "evs-cli", ["member"])
    started = person.evs("run", "start", "order", "--wait", "-o", "json").json
    assert started["principal"]["username"] == visitor.username
    (kept,) = Path(person.home).rglob("*.tokens.json")
    kept.chmod(0o644)
    assert person.evs("auth", "logout").code == 4
    kept.chmod(0o600)
    assert "signed out of" in person.evs("auth", "logout").err, "what could not be ended was not forgotten"
    assert not kept.exists()
    assert person.evs("auth", "status", "-o", "json").json["client"] == "evs-local"


def sign_in_at_desk(person, visitor: Visitor, tmp_path: Path, *options: str) -> None:
    # What a desktop would open is written down by a browser of this test, which stays open until it is closed.
    opened, closed = tmp_path / "opened", tmp_path / "closed"
    script = tmp_path / "open-browser"
    os.mkfifo(closed)
    script.write_text(
        f'#!/bin/sh\nprintf "%s" "$1" > {opened}.part && mv {opened}.part {opened} && read line < {closed}\n'
    )
    script.chmod(0o700)
    at_desk = person.with_variables(BROWSER=f"{script} %s")
    process = at_desk.start("auth", "login", "--web", "--insecure-storage", *options)
    person.wait_for(lambda: opened.exists() or process.poll() is not None)

    async def go() -> None:
        async with Browser() as browser:
            page = await browser.open(opened.read_text())
            values = {"username": visitor.username, "password": visitor.password}
            page = await browser.submit(page, page.form("/login"), values)
            page = await browser.submit(page, page.form("/consent"), {"decision": "allow"})
            assert "You are signed in" in page.text

    asyncio.run(go())
    process.wait(30)
    closed.write_text("\n")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_a_person_signs_in_with_the_browser_of_the_machine(person, visitor, tmp_path):
    sign_in_at_desk(person, visitor, tmp_path)
    assert person.evs("auth", "status", "-o", "json").json["user"] == visitor.username


@contextmanager
def lying_server(**lies: str) -> Iterator[str]:
    """An AuthService that answers whoever signs in with what it likes."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            endpoints = {f"{name}_endpoint": f"{url}/{name}" for name in ("authorization", "device_authorization")}
            self.answer(200, {"issuer": url, "token_endpoint": f"{url}/token"} | endpoints | lies)

        def do_POST(self) -> None:
            device = {"device_code": "d", "user_code": "A", "verification_uri": url, "expires_in": 60, "interval": 0}
            denied = {"error": "access_denied", "error_description": "\x1b[2Jno"}
            self.answer(*((400, denied) if self.path == "/token" else (200, device | lies)))

        def answer(self, code: int, told: dict[str, object]) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield url
        server.shutdown()


def test_a_server_steers_no_terminal(shell):
    with lying_server(verification_uri_complete="https://x/\x1b]0;gone\x07", user_code="B\x1b[8m") as url:
        told = shell.evs("auth", "login", "--device", "--insecure-storage", EVS_AUTH_URL=url, EVS_APP_URL=url)
    assert told.code == 4
    assert ("https://x/\\x1b]0;gone\\x07" in told.err, "\x1b" in told.err) == (True, False)


def test_a_server_has_no_program_of_this_machine_started(shell, tmp_path):
    opened, script = tmp_path / "opened", tmp_path / "open-browser"
    script.write_text(f'#!/bin/sh\nprintf "%s" "$1" > {opened}\n')
    script.chmod(0o700)
    with lying_server(authorization_endpoint="search-ms:query=x") as url:
        login = ("auth", "login", "--web", "--insecure-storage")
        told = shell.evs(*login, EVS_AUTH_URL=url, EVS_APP_URL=url, BROWSER=f"{script} %s")
    assert "must be reached as the issuer is" in told.err
    assert not opened.exists()


def test_kept_tokens_are_private_and_no_token_is_in_the_configuration(person, visitor):
    sign_in(person, visitor)
    files = list(Path(person.home).rglob("*.tokens.json"))
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600]
    token = person.evs("auth", "token").out.strip()
    assert token.count(".") == 2
    config = next(Path(person.home).rglob("config.json")).read_text()
    assert token not in config


def test_an_expired_token_is_renewed_without_a_word(person, visitor):
    sign_in(person, visitor)
    kept = next(Path(person.home).rglob("*.tokens.json"))
    before = person.evs("auth", "token").out
    kept.write_text(re.sub(r'"expires_at": "\d{4}', '"expires_at": "2000', kept.read_text()))
    answer = person.evs("run", "list")
    assert (answer.code, answer.err) in ((0, ""), (0, "there are no such runs\n"))
    assert person.evs("auth", "token").out != before


def test_without_a_keyring_nothing_is_kept_in_plain_files_unasked(person):
    answer = person.evs("auth", "login", "--device")
    assert answer.code == 4
    assert "--insecure-storage" in answer.err
    assert "EVS_TOKEN" in answer.err


@pytest.mark.parametrize(("key", "code"), [("Ctrl-C", 130), ("Ctrl-D", 4)])
def test_the_question_where_to_keep_a_sign_in_can_be_left(shell, key, code):
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        shell.command("auth", "login"),
        env=shell.with_variables(EVS_AUTH_URL="http://127.0.0.1:9").environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(terminal, 1024)
    if key == "Ctrl-C":
        # A signal that comes between the question and the waiting for its answer would be seen after the answer.
        shell.wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        process.send_signal(signal.SIGINT)
    else:
        os.write(terminal, b"\x04")
    out, _ = process.communicate(timeout=30)
    os.close(terminal)
    assert (process.returncode, out) == (code, b""), shown


def test_web_and_device_together_are_a_usage_error(person):
    assert person.evs("auth", "login", "--web", "--device").code == 2


def test_a_role_is_asked_for_granted_by_an_administrator_and_in_the_next_token(person, visitor):
    sign_in(person, visitor)
    asked = person.evs("auth", "request-role", "operator", "--reason", "to help", "-o", "json")
    assert asked.json["status"] == "pending", asked.err

    admin = person.somebody_else("admin")
    sign_in(admin, Visitor("admin", ADMIN_PASSWORD))

    def question() -> list[dict[str, str]]:
        items = admin.evs("approval", "list", "-o", "json").json
        return [item for item in items if visitor.username in item["text"]]

    person.wait_for(question)
    approval = question()[0]["id"]
    assert person.evs("approval", "approve", approval).code == 3, "it names administrators only"
    answer = admin.evs("approval", "approve", approval, "--comment", "welcome")
    assert answer.code == 0, answer.err
    assert admin.evs("approval", "approve", approval).code == 5, "only once"

    def has_role() -> bool:
        kept = next(path for path in Path(person.home).glob(".local/state/evs/*.tokens.json"))
        kept.write_text(re.sub(r'"expires_at": "\d{4}', '"expires_at": "2000', kept.read_text()))
        return "operator" in person.evs("auth", "status", "-o", "json").json["roles"]

    person.wait_for(has_role)


def test_an_administrator_makes_lists_and_resets_users(person):
    admin = person.somebody_else("admin")
    sign_in(admin, Visitor("admin", ADMIN_PASSWORD), "--admin")
    name = f"lee-{uuid.uuid4().hex[:8]}"
    made = admin.evs("admin", "user", "create", name, "--email", "lee@example.org", "--role", "operator", "-o", "json")
    assert made.code == 0, made.err
    assert made.json["password"]
    assert name in admin.evs("admin", "user", "list").out
    reset = admin.evs("admin", "user", "reset-password", name, "-o", "json")
    assert reset.json["password"] not in ("", None, made.json["password"])
    assert admin.evs("admin", "user", "create", name).code == 2
    assert admin.evs("admin", "user", "reset-password", "nobody").code == 3


def test_a_token_that_cannot_be_read_tells_nobody_who_you_are(person):
    answer = person.with_variables(EVS_TOKEN="garbled").evs("auth", "status")
    assert (answer.code, answer.out) == (4, "")
    assert "EVS_TOKEN" in answer.err


def test_a_given_token_is_said_not_to_be_renewed(person):
    token = person.evs("auth", "token").out.strip()
    assert "renewed by itself" in person.evs("auth", "status").out
    assert "not renewed" in person.with_variables(EVS_TOKEN=token).evs("auth", "status").out


def test_a_sign_in_for_work_does_not_administer(person):
    admin = person.somebody_else("admin")
    sign_in(admin, Visitor("admin", ADMIN_PASSWORD))
    answer = admin.evs("admin", "user", "list")
    assert answer.code == 4
    assert "evs auth login --admin" in answer.err


def test_a_password_is_reset_offline_but_not_while_the_product_runs(product):
    answer = product.evs("admin", "user", "reset-password", "admin", "--data", str(product.folder / ".evs"))
    assert answer.code == 5
    assert "evs down" in answer.err


def test_offline_the_password_of_nobody_is_not_found(shell):
    (shell.folder / "data").mkdir()
    (shell.folder / "data" / ".gitignore").write_text("*\n")
    answer = shell.evs("admin", "user", "reset-password", "nobody", "--data", "data")
    assert (answer.code, answer.out) == (3, "")
    assert "nobody" in answer.err


@pytest.mark.parametrize("way", ["device", "web"])
def test_a_sign_in_bound_to_a_key_acts_streams_and_renews_and_its_token_alone_is_worth_nothing(
    person, visitor, tmp_path, way
):
    if way == "device":
        sign_in(person, visitor, "--dpop")
    else:
        sign_in_at_desk(person, visitor, tmp_path, "--dpop")
    status = person.evs("auth", "status", "-o", "json").json
    assert (status["user"], status["bound"]) == (visitor.username, True)
    started = person.evs("run", "start", "order", "--wait", "-o", "json").json
    assert started["principal"]["username"] == visitor.username
    assert person.evs("run", "watch", started["id"]).code == 0, "a stream"
    refused = person.evs("auth", "token")
    assert (refused.code, refused.out) == (4, "")
    assert "bound to a key" in refused.err
    (kept,) = Path(person.home).rglob("*.tokens.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    document = json.loads(kept.read_text())
    stolen = document["access"][""]["access_token"]
    assert person.with_variables(EVS_TOKEN=stolen).evs("run", "list").code == 4, "the AppService wants a proof"
    kept.write_text(re.sub(r'"expires_at": "\d{4}', '"expires_at": "2000', kept.read_text()))
    assert person.evs("run", "list").code == 0, "it is renewed"
    assert json.loads(kept.read_text())["access"][""]["access_token"] != stolen
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"proof_key": None}))
    without_key = person.evs("run", "list")
    assert (without_key.code, "evs auth login" in without_key.err) == (4, True), "nor does the refresh token bring more"


def test_administration_can_be_bound_to_a_key_too_whatever_a_path_has_in_it(person):
    administrator = Visitor("admin", ADMIN_PASSWORD)
    sign_in(person, administrator, "--dpop", "--admin")
    name = f"Those of {uuid.uuid4().hex[:8]} & others"
    assert person.evs("admin", "group", "create", name).code == 0
    assert person.evs("admin", "group", "edit", name, "--description", "x", "-o", "json").json["description"] == "x"
    assert person.evs("admin", "group", "delete", name).code == 0
