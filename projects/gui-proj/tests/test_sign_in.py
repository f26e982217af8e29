"""The OAuth workflow as the GUI does it, against the real AuthService and AppService."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from lib_events.testing import wait_until


def query_of(answer):
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def test_opening_a_page_without_a_session_leads_to_the_issuer_the_appservice_names(product):
    challenge = httpx.get(f"{product.app_url}/v1/workflows")
    assert challenge.status_code == 401
    assert "resource_metadata" in challenge.headers["WWW-Authenticate"]
    with product.person() as person:
        answer = person.get("/runs?status=failed")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{product.auth_url}/oauth2/authorize?")
    query = query_of(answer)
    assert query["client_id"] == "evs-gui"
    assert query["code_challenge_method"] == "S256"
    assert query["resource"] == product.app_url
    assert query["redirect_uri"] == f"{product.gui_url}/callback"
    assert query["state"] != query["nonce"]


def test_signing_in_comes_back_to_where_one_wanted_to_go(product):
    with product.person() as person:
        page = person.sign_in("/runs?status=failed")
        assert page.status_code == 200
        assert page.url.path == "/runs"
        assert page.url.query == b"status=failed"
        assert "admin" in page.text


def test_the_browser_gets_a_random_cookie_and_never_a_token(product):
    with product.person() as person:
        page = person.sign_in("/account")
        setting = next(
            cookie
            for each in page.history
            for cookie in each.headers.get_list("set-cookie")
            if cookie.startswith(f"{product.cookie}=")
        )
        assert "HttpOnly" in setting
        assert "SameSite=lax" in setting
        assert "Path=/" in setting
        assert "Secure" not in setting  # http on loopback has no other choice
        assert "eyJ" not in page.text  # how every JWT begins
        assert not any("eyJ" in cookie.value for cookie in person.cookies.jar)


def test_a_wrong_password_stays_at_the_authservice(product):
    with product.person() as person:
        page = person.sign_in("/", password="wrong")
        assert str(page.url).startswith(product.auth_url)
        assert person.cookies.get(product.cookie) is None


def test_an_answer_to_nobodys_question_is_refused_with_a_way_out(product):
    with product.person() as person:
        page = person.get("/callback?code=stolen&state=made-up")
    assert page.status_code == 400
    assert 'href="/sign-in"' in page.text
    assert product.cookie not in page.cookies


def test_the_answer_must_come_to_the_browser_that_asked(product):
    with product.person() as person, product.person() as other:
        begun = person.get("/")
        state = query_of(begun)["state"]
        page = other.get(f"/callback?code=x&state={state}&iss={product.auth_url}")
    assert page.status_code == 400


def test_an_answer_is_taken_once(product):
    with product.person() as person:
        page = person.sign_in("/runs")
        assert page.url.path == "/runs"
        (answer,) = [each.url for each in page.history if each.url.path == "/callback"]
        for again in (answer, answer.copy_set_param("code", "a-thiefs")):
            assert person.get(again).status_code == 400
        assert person.get("/account").status_code == 200, "it ends no session either"


def test_no_script_listens_to_other_windows_or_speaks_to_them():
    script = (files("gui_proj") / "static" / "live.js").read_text()
    assert set(re.findall(r"([\w.]+)\.(?:postMessage|onmessage)", script)) == {"channel"}
    assert "channel = new BroadcastChannel(" in script, "which no page of another origin hears"
    assert not re.search(r"opener|addEventListener\(\s*.message", script)


def test_a_declined_sign_in_says_so(product):
    with product.person() as person:
        state = query_of(person.get("/"))["state"]
        page = person.get(f"/callback?error=access_denied&state={state}&iss={product.auth_url}")
    assert page.status_code == 400
    assert "declined" in page.text


def test_two_tabs_may_sign_in_side_by_side(product):
    with product.person() as person:
        first = person.get("/runs")
        person.get("/events")
        page = person.get(first.headers["Location"], follow_redirects=True)
        landed = person.fill_in(page)
        assert landed.url.path == "/runs"


def test_sign_ins_that_nobody_ends_do_not_fill_the_cookie_header(product):
    with product.person() as person:
        for _ in range(20):
            last = person.get("/runs")
        assert len(last.request.headers["cookie"]) < 8_000, "what a proxy takes as one header"
        landed = person.fill_in(person.get(last.headers["Location"], follow_redirects=True))
        assert landed.url.path == "/runs"


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example/", "/\\evil.example", "/a\r\nb"])
def test_a_sign_in_never_ends_at_somebody_elses_site(product, address):
    with product.person() as person:
        begun = person.get("/sign-in", params={"next": address})
        page = person.get(begun.headers["Location"], follow_redirects=True)
        landed = person.fill_in(page)
        assert str(landed.url) == f"{product.gui_url}/"


def test_signing_out_ends_the_session_here_and_at_the_authservice(product):
    with product.signed_in() as person:
        kept = person.cookies.get(product.cookie)
        answer = person.submit("/sign-out", {}, page="/account")
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith(f"{product.auth_url}/oauth2/logout?")
        page = person.get(answer.headers["Location"], follow_redirects=True)
        assert page.url.path == "/signed-out"
        assert person.cookies.get(product.cookie) is None
        asked = person.get("/", follow_redirects=True)
        assert str(asked.url).startswith(f"{product.auth_url}/login")  # no silent way back in
        stale = httpx.get(f"{product.gui_url}/", cookies={product.cookie: kept})
        assert stale.status_code == 401
        assert "Your session has ended" in stale.text


async def test_an_expired_token_is_renewed_once_however_many_ask(short_lived):
    with short_lived.signed_in() as person:
        person.get("/account")
        expired = time.monotonic() + short_lived.access_seconds + 0.5
        await wait_until(lambda: time.monotonic() > expired)
        with ThreadPoolExecutor(12) as pool:
            pages = list(pool.map(lambda number: person.get(f"/runs?q=n{number}"), range(24)))
        assert {page.status_code for page in pages} == {200}
        # A second use of the same refresh token would have ended the whole family.
        assert person.get("/").status_code == 200


async def test_a_session_ended_at_the_authservice_ends_kindly_here(short_lived):
    with short_lived.signed_in() as person:
        page = person.get(f"{short_lived.auth_url}/oauth2/logout")
        form = person.hidden(page)
        person.post(f"{short_lived.auth_url}/oauth2/logout", data=form, headers={"Origin": short_lived.auth_url})
        ended = await wait_until(lambda: (found := person.get("/runs")).status_code == 401 and found, timeout=10)
        assert "Your session has ended" in ended.text
        assert 'href="/sign-in?next=%2Fruns"' in ended.text
        where = {"Referer": f"{short_lived.gui_url}/workflows/order?tab=json"}
        assert 'next=%2Fworkflows%2Forder%3Ftab%3Djson"' in person.post("/workflows/order", headers=where).text
        foreign = person.post("/workflows/order", headers={"Referer": "https://elsewhere.example/workflows/order"})
        assert 'href="/sign-in?next=%2F"' in foreign.text
        assert person.get("/live").status_code == 401


def test_a_restart_signs_nobody_out_and_services_that_are_down_are_named(own_product):
    with own_product.signed_in() as person:
        own_product.stop("gui_proj")
        own_product.start("gui_proj")
        assert person.get("/").status_code == 200
        own_product.stop("app_svc")
        page = person.get("/runs")
        assert page.status_code == 503
        assert "The AppService does not answer" in page.text
        assert page.headers["Retry-After"] == "3"
        assert '<meta http-equiv="refresh" content="3">' in page.text
        with own_product.person() as newcomer:
            assert newcomer.get("/").status_code == 503
        own_product.start("app_svc")
        own_product.stop("auth_svc")
        with own_product.person() as newcomer:
            down = newcomer.get("/")
            assert down.status_code == 503
            assert "The AuthService does not answer" in down.text
