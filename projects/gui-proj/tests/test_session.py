"""Sessions at rest, and the doors that keep strangers out."""

import asyncio
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gui_proj.app_service import AppService, AppServiceDown
from gui_proj.live import EVERYTHING, Listener, UnderWay, event_data, topics_of
from gui_proj.sealed import derived_key, from_text, seal, to_text, unseal
from gui_proj.session import LIFETIME_SECONDS, AuthServiceDown, Person, Sessions, SignedOut
from gui_proj.settings import GuiSettings
from gui_proj.sign_in import local_path
from lib_auth.client import OAuthClient
from lib_auth.oauth_error import OAuthError, ServerUnavailable
from lib_auth.tokens import TokenSet
from lib_events.settings import SettingsRejected
from lib_events.testing import wait_until


@pytest.fixture
def open_sessions(tmp_path):
    opened = []

    def open_them():
        found = Sessions(tmp_path / "gui.db", OAuthClient("http://127.0.0.1:1", "evs-gui"), resource="")
        opened.append(found)
        return found

    yield open_them
    for each in opened:
        each.close()


def tokens():
    return TokenSet("secret-access", datetime.now(UTC) + timedelta(minutes=5), frozenset({"openid"}), "secret-refresh")


PERSON = Person("u1", "ada", ("member",))


def test_a_session_outlives_the_process_that_made_it(open_sessions):
    cookie = open_sessions().begin(PERSON, tokens()).cookie
    found = open_sessions().find(cookie)
    assert found is not None
    assert found.person == PERSON
    assert found.tokens.refresh_token == "secret-refresh"


def test_the_file_gives_away_neither_tokens_nor_cookies(open_sessions, tmp_path):
    cookie = open_sessions().begin(PERSON, tokens()).cookie
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret" not in content
    assert cookie.encode() not in content
    assert stat.S_IMODE((tmp_path / "gui.db").stat().st_mode) == 0o600


def test_a_guessed_or_ended_session_is_none(open_sessions):
    sessions = open_sessions()
    session = sessions.begin(PERSON, tokens())
    assert sessions.find("guessed") is None
    assert sessions.find("") is None
    sessions.end(session)
    assert sessions.find(session.cookie) is None
    assert open_sessions().find(session.cookie) is None


def test_a_session_ends_after_a_week_and_nothing_is_left_of_it(open_sessions, tmp_path, monkeypatch):
    sessions = open_sessions()
    session = sessions.begin(PERSON, tokens())
    later = session.began_at + LIFETIME_SECONDS
    monkeypatch.setattr("gui_proj.session.time.time", lambda: later)
    assert sessions.find(session.cookie) is None
    again = open_sessions()
    assert again.find(session.cookie) is None
    assert again.find(again.begin(PERSON, tokens()).cookie) is not None
    with closing(sqlite3.connect(tmp_path / "gui.db")) as database:
        assert database.execute("select count(*) from sessions").fetchone() == (1,)


class Issuer:
    """Exchanges each refresh token once, and only when told to answer."""

    def __init__(self):
        self.may_answer = asyncio.Event()
        self.refreshes = []
        self.idempotency_keys = []
        self.error = None

    async def refresh(self, refresh_token, *, resource, idempotency_key):
        self.refreshes.append(refresh_token)
        self.idempotency_keys.append(idempotency_key)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        number = len(self.refreshes)
        return replace(tokens(), access_token=f"access-{number}", refresh_token=f"refresh-{number}")

    async def introspect(self, access_token):
        return {"active": True, "sub": PERSON.subject, "roles": ["operator"]}


@pytest.fixture
def issued(tmp_path):
    issuer = Issuer()
    sessions = Sessions(tmp_path / "gui.db", issuer, resource="")
    yield issuer, sessions, sessions.begin(PERSON, tokens())
    sessions.close()


async def test_a_refresh_whose_page_was_left_is_not_done_twice(issued):
    issuer, sessions, session = issued
    left = asyncio.create_task(sessions.renew(session, "secret-access"))
    await wait_until(lambda: issuer.refreshes)
    left.cancel()
    await asyncio.wait([left])
    following = asyncio.create_task(sessions.renew(session, "secret-access"))
    issuer.may_answer.set()
    await following
    # A second use of the same refresh token would have ended the whole family.
    assert issuer.refreshes == ["secret-refresh"]
    assert sessions.find(session.cookie).tokens.refresh_token == "refresh-1"


async def test_a_refresh_that_comes_back_after_signing_out_brings_no_session_back(issued, open_sessions):
    issuer, sessions, session = issued
    late = asyncio.create_task(sessions.renew(session, "secret-access"))
    await wait_until(lambda: issuer.refreshes)
    sessions.end(session)
    issuer.may_answer.set()
    with pytest.raises(SignedOut):
        await late
    assert sessions.find(session.cookie) is None
    assert open_sessions().find(session.cookie) is None


async def test_a_refresh_whose_answer_was_lost_is_asked_for_again_as_the_same_after_a_restart_too(issued, tmp_path):
    issuer, sessions, session = issued
    issuer.may_answer.set()
    issuer.error = ServerUnavailable("cut off")
    with pytest.raises(AuthServiceDown):
        await sessions.renew(session, "secret-access")
    issuer.error = None
    again = Sessions(tmp_path / "gui.db", issuer, resource="")
    found = again.find(session.cookie)
    await again.renew(found, "secret-access")
    await again.renew(found, found.tokens.access_token)
    again.close()
    lost, repeated, following = issuer.idempotency_keys
    assert lost == repeated != following
    assert issuer.refreshes == ["secret-refresh", "secret-refresh", "refresh-2"]


async def test_a_gui_that_is_refused_itself_signs_nobody_out(issued):
    issuer, sessions, session = issued
    issuer.may_answer.set()
    issuer.error = OAuthError("invalid_client", status=401)
    with pytest.raises(AuthServiceDown):
        await sessions.renew(session, "secret-access")
    assert sessions.find(session.cookie) is session
    issuer.error = OAuthError("invalid_grant", status=400)
    with pytest.raises(SignedOut):
        await sessions.renew(session, "secret-access")
    assert sessions.find(session.cookie) is None


async def test_an_appservice_that_refuses_what_was_just_given_signs_nobody_out(issued):
    issuer, sessions, session = issued
    issuer.may_answer.set()
    asked = []

    def refuse(request):
        asked.append(request.headers["authorization"])
        return httpx.Response(401)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http:
        service = AppService(http, "http://127.0.0.1:1", sessions)
        with pytest.raises(AppServiceDown, match="just given"):
            await service.get(session, "/v1/runs")
        with pytest.raises(AppServiceDown, match="just given"):
            async with service.stream(session, "/v1/events"):
                pass
    assert sessions.find(session.cookie) is session
    assert asked == [f"Bearer {token}" for token in ("secret-access", "access-1", "access-1", "access-2")]


def test_every_session_has_a_name_of_its_own(open_sessions):
    sessions = open_sessions()
    assert sessions.begin(PERSON, tokens()).cookie != sessions.begin(PERSON, tokens()).cookie


def test_a_csrf_token_changes_each_time_and_fits_only_its_session(open_sessions):
    sessions = open_sessions()
    one, other = sessions.begin(PERSON, tokens()), sessions.begin(PERSON, tokens())
    assert one.csrf_token() != one.csrf_token()
    assert one.csrf_token_fits(one.csrf_token())
    assert not other.csrf_token_fits(one.csrf_token())
    assert not one.csrf_token_fits("")
    assert not one.csrf_token_fits("ü" * 44)


def test_what_is_sealed_opens_only_with_its_key_and_for_its_purpose():
    key = derived_key("secret", "a")
    sealed = seal(key, b"hello", purpose="a")
    assert unseal(key, sealed, purpose="a") == b"hello"
    assert unseal(key, sealed, purpose="b") is None
    assert unseal(derived_key("secret", "b"), sealed, purpose="a") is None
    assert unseal(key, b"", purpose="a") is None
    assert from_text(to_text(sealed)) == sealed


@pytest.mark.parametrize(
    "address",
    ["https://x.example", "//x.example", "/\\x.example", "runs", "/a\nb", "javascript:x", "//[", "/\t/x.example", ""],
)
def test_only_a_path_of_ours_is_returned_to(address):
    assert local_path(address) == "/"
    assert local_path("/runs?q=a#b") == "/runs?q=a#b"


@pytest.mark.parametrize("url", ["http://gui.example", "http://192.168.1.4:8000", "ftp://127.0.0.1"])
def test_plain_http_is_for_loopback_only(url):
    with pytest.raises(SettingsRejected, match="EVS_GUI_URL"):
        GuiSettings(gui_url=url).check_address()


def test_the_cookie_is_as_strict_as_the_address_allows():
    assert GuiSettings(gui_url="https://gui.example").cookie == "__Host-evs-gui"
    assert GuiSettings(gui_port=8123).cookie == "evs-gui-8123"


def test_an_event_concerns_the_regions_that_show_its_subject():
    assert topics_of({"type": "evs.run.completed", "subject": "r1", "data": {}}) == ["events", "runs", "run:r1"]
    assert topics_of({"type": "evs.step.completed", "subject": "r1"}) == ["events", "run:r1"]
    assert "approvals" in topics_of({"type": "evs.approval.decided", "subject": "a1", "data": {"run": "r1"}})
    assert topics_of({"type": "shop.order.placed", "data": [1]}) == ["events"]


def test_a_slow_listener_is_told_to_look_at_everything():
    listener = Listener()
    for number in range(1_000):
        listener.offer({"topics": [f"run:{number}"]})
    told = [listener.notices.get_nowait() for _ in range(listener.notices.qsize())]
    assert {"topics": [EVERYTHING]} in told
    assert told[-1] == {"topics": ["run:999"]}


def test_operations_are_under_way_until_they_end():
    under_way = UnderWay()
    step = {"operation": "1", "kind": "step", "name": "charge", "attempt": 1}
    under_way.hear({"type": "evs.step.started", "time": "t1", "data": step})
    under_way.hear({"type": "evs.step.retried", "time": "t2", "data": step | {"attempt": 2}})
    assert under_way.operations["1"]["attempt"] == 2
    assert under_way.operations["1"]["started_at"] == "t1"
    under_way.hear({"type": "evs.step.completed", "time": "t3", "data": step})
    under_way.hear({"type": "evs.run.completed", "data": None})
    assert under_way.operations == {}


async def test_an_event_stream_is_read_as_the_standard_says():
    text = ": hello\n\nid: 1.4\nevent: a\ndata: one\ndata: two\n\nretry: 5\n\ndata:three\n\nid: 1.5\n\n"
    answer = httpx.Response(200, content=text.encode())
    assert [data async for data in event_data(answer)] == ["one\ntwo", "three"]
