"""Revocations: learnt from the feed and from events, kept over a restart, and never failing open."""

import asyncio
import time
from functools import partial

import httpx
import pytest

from lib_auth.access_token import RevocationsUnknown
from lib_auth.events import (
    SessionEnded,
    SessionEndedData,
    TokenRevoked,
    TokenRevokedData,
    UserChangedData,
    UserDisabled,
    UserEnabled,
)
from lib_auth.revocations import (
    KEEP_SECONDS,
    WAIT_SECONDS,
    Revocation,
    RevocationList,
    Revocations,
    hear_revocations,
    revocations_of,
)
from lib_auth.tables import SCHEMA
from lib_events import event_log
from lib_events.clock import to_micros
from lib_events.database import open_database
from lib_events.event import Event
from lib_events.lifecycle import running
from lib_events.secret_file import read_secret
from lib_events.testing import wait_until

ISSUER = "http://127.0.0.1:8001"


class AuthService:
    """Answers like the feed and the introspection endpoint of an issuer."""

    def __init__(self):
        self.items = []
        self.away = False
        self.active = True
        self.now = 0.0
        self.gone = False
        self.on_gone = self.on_answer = self.on_introspect = lambda: None
        self.begun_again = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0
        self.waits = []

    def http(self):
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    async def _answer(self, request):
        if self.away:
            raise httpx.ConnectError("away")
        if request.url.path == "/v1/revocations":
            return await self._feed(request.url.params)
        if request.url.path == "/oauth2/introspect":
            self.on_introspect()
            return httpx.Response(200, json={"active": self.active})
        names = ("token", "jwks", "introspection")
        endpoints = {f"{name}_endpoint": f"{ISSUER}/oauth2/introspect" for name in names}
        return httpx.Response(200, json={"issuer": ISSUER} | endpoints)

    async def _feed(self, params):
        self.asked += 1
        self.waits.append(int(params["wait"]))
        await self.answers.wait()
        epoch, _, position = params.get("after", "1.0").partition(".")
        gone = self.gone  # an answer that was held is of the log that was asked for
        if gone and epoch == "1" and "after" in params:
            self.on_gone()
            return httpx.Response(410)
        self.begun_again |= "after" not in params and gone
        start = int(position)
        for _ in range(100 if self.waits[-1] else 0):
            if len(self.items) > start or self.away:
                break
            await asyncio.sleep(0.01)
        items = [item.to_dict() for item in self.items[start:]]
        self.on_answer()
        cursor = f"{2 if gone else 1}.{len(self.items)}"
        return httpx.Response(200, json={"items": items, "next_cursor": cursor, "head": True})


@pytest.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[event_log.SCHEMA, SCHEMA])
    yield opened
    await opened.close()


def follow(database, issuing):
    return Revocations(
        database,
        issuer=ISSUER,
        client_id="evs-app",
        client_secret=lambda: "secret",
        http=issuing.http(),
        clock=lambda: issuing.now,
    )


def revoke(kind, value, *, until=0):
    return Revocation(kind, value, until, int(time.time()) + 300)


async def test_a_revocation_is_heard_from_the_feed_and_kept(issuer, database):
    issuing = AuthService()
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        assert not await revocations.is_revoked(principal, "")
        issuing.items.append(revoke("family", "family-1"))
        await wait_until(lambda: revocations.is_revoked(principal, ""))
        await wait_until(lambda: revocations._cursor == "1.1")  # what counts at once is kept a moment later
    issuing.away = True
    again = follow(database, issuing)
    async with running(again):
        await wait_until(lambda: again.is_revoked(principal, "") if len(again._list) else None)


async def test_an_event_wakes_before_the_feed_is_read(issuer, database):
    issuing = AuthService()
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        data = SessionEndedData(session="session-1", user="ada", reason="signed out")
        event = Event.of(SessionEnded, data, source="/auth-svc")
        await database.transact(hear_revocations, event)
        await wait_until(lambda: revocations.is_revoked(principal, ""))


async def test_an_event_is_heard_while_the_issuer_holds_the_question(issuer, database):
    issuing = AuthService()
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        issuing.answers.clear()  # it hangs, or one of several does
        asked = issuing.asked
        await wait_until(lambda: issuing.asked > asked)
        event = Event.of(TokenRevoked, TokenRevokedData(family="family-1"), source="/auth-svc")
        await database.transact(hear_revocations, event)
        await wait_until(lambda: revocations.is_revoked(principal, ""))
        assert issuing.asked == asked + 1


async def test_what_was_read_counts_while_it_cannot_be_kept(issuer, database, monkeypatch):
    issuing = AuthService()
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        monkeypatch.setattr(database, "transact", lambda *_: asyncio.Event().wait())
        issuing.items.append(revoke("family", "family-1"))
        await wait_until(lambda: revocations.is_revoked(principal, ""))


async def test_what_is_heard_while_the_issuer_is_asked_counts(issuer, database):
    issuing = AuthService()
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    issuing.on_introspect = lambda: revocations._list.add([revoke("family", "family-1")])
    assert await revocations.is_revoked(principal, "token")


async def test_a_clock_that_was_ahead_for_an_hour_has_nothing_forgotten(issuer, database, monkeypatch):
    issuing, true_time = AuthService(), time.time
    issuing.items += [revoke("family", "family-1"), Revocation("family", "long over", 0, 1)]
    principal = await issuer.verifier().verify(issuer.token())
    revocations = follow(database, issuing)
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        assert len(revocations._list) == 1, "what is long over takes no room"
        with monkeypatch.context() as ahead:
            ahead.setattr("lib_auth.revocations.time.time", lambda: true_time() + 3_600)
            issuing.items.append(revoke("family", "family-2"))
            await wait_until(lambda: ("family", "family-2") in revocations._list._known)
        assert await revocations.is_revoked(principal, "")
    again = follow(database, issuing)
    async with running(again):
        await wait_until(lambda: again.is_up_to_date)
        assert await again.is_revoked(principal, "")


async def test_until_the_feed_was_read_and_after_silence_tokens_are_introspected(issuer, database):
    issuing = AuthService()
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    assert await revocations.check_ready() is not None
    assert not await revocations.is_revoked(principal, "token")
    issuing.active = False
    assert await revocations.is_revoked(principal, "token")
    issuing.away = True
    with pytest.raises(RevocationsUnknown):
        await revocations.is_revoked(principal, "token")
    issuing.away = False
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        assert await revocations.check_ready() is None
        assert not await revocations.is_revoked(principal, "token"), "of what was heard nobody is asked again"
        await wait_until(lambda: issuing.asked > 1)
        assert issuing.waits[:2] == [0, WAIT_SECONDS], "who is not ready yet does not wait; who is asks seldom"
    issuing.now, issuing.away = 11, True
    assert await revocations.check_ready() is not None
    with pytest.raises(RevocationsUnknown):
        await revocations.is_revoked(principal, "token")


@pytest.mark.parametrize("mode", [None, 0o644], ids=["gone", "exposed"])
async def test_without_its_secret_a_service_can_ask_nobody_and_says_so(issuer, database, tmp_path, mode):
    path = tmp_path / "evs-app.secret"
    if mode is not None:
        path.touch(mode=mode)
    revocations = Revocations(
        database,
        issuer=ISSUER,
        client_id="evs-app",
        client_secret=partial(read_secret, path),
        http=AuthService().http(),
    )
    with pytest.raises(RevocationsUnknown, match="has no secret to ask with") as unknown:
        await revocations.is_revoked(await issuer.verifier().verify(issuer.token()), "token")
    assert str(path) not in str(unknown.value), "whoever sent the token reads it"


async def test_what_is_known_to_be_revoked_needs_nobody_else(issuer, database):
    issuing = AuthService()
    issuing.items.append(revoke("token", "token-1"))
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
    issuing.away, issuing.now = True, 1000
    assert await revocations.is_revoked(principal, "token")


async def test_a_restored_issuer_is_read_from_the_beginning(issuer, database):
    issuing = AuthService()
    revocations = follow(database, issuing)
    principal = await issuer.verifier().verify(issuer.token())
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        issuing.gone = True
        issuing.items.append(revoke("family", "family-1"))
        await wait_until(lambda: revocations.is_revoked(principal, ""))


async def test_a_restored_issuer_is_read_from_the_beginning_whoever_wakes_meanwhile(issuer, database):
    issuing = AuthService()
    issuing.items.append(revoke("family", "family-2"))
    revocations = follow(database, issuing)
    async with running(revocations):
        await wait_until(lambda: revocations.is_up_to_date)
        issuing.gone, issuing.on_gone = True, revocations.wake  # as each event that is imported does
        issuing.items.append(revoke("family", "family-1"))
        await wait_until(lambda: issuing.begun_again)


async def test_an_answer_that_is_read_late_says_what_was_so_when_it_was_asked_for(issuer, database):
    issuing = AuthService()
    issuing.on_answer = lambda: setattr(issuing, "now", issuing.now + 11)  # the process stood still
    revocations = follow(database, issuing)
    async with running(revocations):
        await wait_until(lambda: issuing.now > 30)
        assert not revocations.is_up_to_date
        issuing.on_answer = lambda: None
        await wait_until(lambda: revocations.is_up_to_date)


@pytest.mark.parametrize(
    ("kind", "value", "refused"),
    [
        ("token", "token-1", True),
        ("token", "token-2", False),
        ("session", "session-1", True),
        ("family", "family-1", True),
        ("user", "ada", True),
        ("user", "grace", False),
        ("client", "evs-gui", True),
        ("role", "member", True),
        ("role", "operator", False),
    ],
)
async def test_a_token_is_refused_by_any_of_its_names(issuer, kind, value, refused):
    principal = await issuer.verifier().verify(issuer.token())
    known = RevocationList()
    known.add([revoke(kind, value)])
    assert known.refuses(principal) == refused


async def test_what_is_issued_later_is_good_again(issuer):
    known = RevocationList()
    now = int(time.time())
    known.add([revoke("user", "ada", until=now - 10)])
    assert not known.refuses(await issuer.verifier().verify(issuer.token(iat=now)))
    assert known.refuses(await issuer.verifier().verify(issuer.token(iat=now - 10)))
    known.add([revoke("user", "ada", until=now - 20)])  # older news do not weaken newer ones
    assert known.refuses(await issuer.verifier().verify(issuer.token(iat=now - 10)))
    known.add([revoke("user", "ada", until=now - 5)])
    assert known.refuses(await issuer.verifier().verify(issuer.token(iat=now - 6)))


async def test_what_was_taken_from_a_role_reaches_every_token_that_says_it_until_then(issuer):
    known, now = RevocationList(), int(time.time())
    known.add([revoke("role", "clerk", until=now - 10)])
    for roles, issued_at, refused in (
        (["clerk", "member"], now - 10, True),
        (["clerk", "member"], now - 9, False),
        (["member"], now - 20, False),
    ):
        principal = await issuer.verifier().verify(issuer.token(roles=roles, iat=issued_at))
        assert known.refuses(principal) is refused
    known.forget_expired(now + 301)
    assert not known.refuses(await issuer.verifier().verify(issuer.token(roles=["clerk"], iat=now - 20)))


def test_what_names_expired_tokens_only_is_forgotten():
    known = RevocationList()
    known.add([Revocation("user", "ada", 0, 100), Revocation("user", "grace", 0, 200)])
    known.forget_expired(150)
    assert len(known) == 1


def test_three_kinds_of_events_revoke():
    ended = Event.of(SessionEnded, SessionEndedData(session="s", user="u", reason="r"), source="/auth-svc")
    disabled = Event.of(UserDisabled, UserChangedData(user="u", username="n"), source="/auth-svc")
    revoked = Event.of(
        TokenRevoked, TokenRevokedData(token="t", family="f", user="u", issued_until=5), source="/auth-svc"
    )
    assert [(each.kind, each.value) for each in revocations_of(ended)] == [("session", "s")]
    assert [(each.kind, each.value) for each in revocations_of(disabled)] == [("user", "u")]
    found = [(each.kind, each.value, each.issued_until) for each in revocations_of(revoked)]
    assert found == [("token", "t", 0), ("family", "f", 0), ("user", "u", 5)]
    told = Event.of(TokenRevoked, TokenRevokedData(client="c"), source="/auth-svc")
    happened_at = to_micros(told.time) // 1_000_000
    assert revocations_of(told) == (Revocation("client", "c", happened_at, happened_at + KEEP_SECONDS),)
    until = Event.of(TokenRevoked, TokenRevokedData(token="t", expires_at=7), source="/auth-svc")
    assert revocations_of(until) == (Revocation("token", "t", 0, 7),)
    assert revocations_of(Event.of(UserEnabled, UserChangedData(user="u", username="n"), source="/auth-svc")) == ()
    taken = Event.of(TokenRevoked, TokenRevokedData(role="clerk", issued_until=7), source="/auth-svc")
    assert [(each.kind, each.value, each.issued_until) for each in revocations_of(taken)] == [("role", "clerk", 7)]
