"""What every request must be and every answer carries; nothing here needs another service."""

import re

import pytest

from gui_proj.app_service import AppServiceRefused
from gui_proj.web_guard import content_security_policy


def check_page(page):
    """The policy and the form that every page has, whatever it says."""
    assert page.headers["Content-Security-Policy"] == content_security_policy(issuer="http://127.0.0.1:1")
    assert "'unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.text.count("<h1") == 1
    assert '<html lang="en"' in page.text
    assert re.search(r"<[^>]+ (style|on[a-z]+)=", page.text) is None
    assert "<script>" not in page.text


@pytest.mark.parametrize("path", ["/about", "/signed-out", "/nothing", "/callback?code=a&state=b", "/runs"])
async def test_every_page_for_a_stranger_has_the_policy_and_a_way_out(stranger, path):
    page = await stranger.get(path)
    check_page(page)
    assert 'class="button primary"' in page.text


async def test_an_unsafe_request_needs_the_exact_origin(resident):
    form = {"_csrf": resident.csrf_token(), "theme": "dark"}
    for origin in ("null", "https://evil.example", "http://localhost:8123", "http://127.0.0.1:8124", ""):
        assert (await resident.post("/theme", data=form, headers={"Origin": origin})).status_code == 403
    two = [("Origin", "http://127.0.0.1:8123"), ("Origin", "https://evil.example")]
    assert (await resident.post("/theme", data=form, headers=two)).status_code == 403
    del resident.headers["Origin"]
    assert (await resident.post("/theme", data=form)).status_code == 403


@pytest.mark.parametrize("token", ["", "x", "A" * 44, None])
async def test_an_unsafe_request_needs_the_sessions_token(resident, token):
    refused = await resident.post("/theme", data={"theme": "dark"} | ({} if token is None else {"_csrf": token}))
    assert refused.status_code == 403
    assert "another session" in refused.text


async def test_a_strange_host_is_refused_and_localhost_sent_to_the_one_address(stranger):
    assert (await stranger.get("/runs", headers={"Host": "evil.example"})).status_code == 421
    two = [("Host", "127.0.0.1:8123"), ("Host", "evil.example")]
    assert (await stranger.get("/runs", headers=two)).status_code == 421
    moved = await stranger.get("/runs?q=a%20b", headers={"Host": "localhost:8123"})
    assert moved.status_code == 308
    assert moved.headers["Location"] == "http://127.0.0.1:8123/runs?q=a%20b"


async def test_the_theme_is_in_the_first_byte_of_the_next_page(resident):
    for chosen, shown in (("dark", "dark"), ("<script>", "system")):
        answer = await resident.post("/theme", data={"_csrf": resident.csrf_token(), "theme": chosen})
        assert answer.status_code == 303
        assert f'data-theme="{shown}"' in (await resident.get("/about")).text


async def test_a_service_that_does_not_answer_is_named(stranger, resident):
    for path, name in (("/runs", "AppService"), ("/access", "AuthService")):
        page = await resident.get(path)
        assert page.status_code == 503
        assert f"The {name} does not answer" in page.text
        assert '<meta http-equiv="refresh" content="3">' in page.text
        check_page(page)


async def test_what_may_have_been_done_is_not_called_undone(resident):
    page = await resident.post("/runs/r1/cancel", data={"_csrf": resident.csrf_token()})
    assert page.status_code == 503
    assert "Look whether it was done" in page.text
    assert "http-equiv" not in page.text
    assert 'href="/runs">All runs' in page.text


@pytest.mark.parametrize("path", ["/nothing", "/static/x/none.css", "/theme"])
async def test_what_does_not_exist_is_said_with_a_way_out(resident, path):
    page = await resident.get(path)
    assert page.status_code in {404, 405}
    assert 'class="button primary"' in page.text
    assert 'action="/sign-out"' in page.text


@pytest.mark.parametrize("decision", ["", "maybe"])
async def test_only_a_decision_decides(resident, decision):
    form = {"_csrf": resident.csrf_token(), "decision": decision}
    assert (await resident.post("/approvals/a1/decision", data=form)).status_code == 400


async def test_who_misses_a_role_is_told_which_and_not_what_to_type_at_a_terminal(gui, resident, monkeypatch):
    detail = "this needs the role operator; ask for it with: evs auth request-role operator"
    body = {"type": "urn:evs:problem:role-missing", "detail": detail, "role": "operator"}

    async def refuse(*_args, **_parameters):
        raise AppServiceRefused(403, body)

    monkeypatch.setattr(gui.app.state.gui.app, "get", refuse)
    page = await resident.get("/queues")
    check_page(page)
    assert (page.status_code, "evs auth" in page.text) == (403, False)
    assert "It takes the role operator." in page.text
    assert 'href="/access"' in page.text
