"""Mails leave through a real mail server, tried again until it takes them, or become files that only we may read."""

import asyncio
import email
from contextlib import asynccontextmanager
from email import policy

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from sqlalchemy import select, update

from auth_svc import audit, outcome, tables
from auth_svc.audit import Wanted
from auth_svc.composition import open_service
from auth_svc.mail import outbox, postman, texts, transport
from auth_svc.mail.outbox import WaitingMail
from auth_svc.mail.transport import (
    MailDelayed,
    MailFolder,
    MailRefused,
    MailServer,
    message_of,
    sender_of,
    transport_of,
)
from auth_svc.settings import AuthSettings
from lib_events.database import DatabaseUnavailable
from lib_events.settings import SettingsRejected
from lib_events.testing import wait_until
from lib_events.testing.certificate import untrusted_certificate

LETTER = texts.verify_address("ada", "the-secret")
PASSWORD = "correct horse battery staple"


class MailboxServer:
    """Takes mails, or answers a recipient with what a test says."""

    def __init__(self):
        self.received = []
        self.answer = "250 OK"
        self.tls = []
        self.users = []
        self.scanned = asyncio.Event()  # until then it keeps whoever sends waiting
        self.scanned.set()

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        if self.answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.answer

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.tls.append(session.ssl is not None)
        self.received.append(email.message_from_bytes(envelope.content, policy=policy.default))
        await self.scanned.wait()
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, data):
        self.users.append((data.login, data.password))
        return AuthResult(success=data.password == b"mail password")


@asynccontextmanager
async def mail_server(port, mailbox, *, tls=None, implicit=False, **options):
    loop, lines = asyncio.get_running_loop(), []

    def make():
        lines.append(SMTP(mailbox, loop=loop, hostname="mail.test", tls_context=None if implicit else tls, **options))
        return lines[-1]

    server = await loop.create_server(make, "127.0.0.1", port, ssl=tls if implicit else None)
    try:
        yield
    finally:
        server.close()
        for line in lines:
            if line.transport is not None:
                line.transport.close()
        await server.wait_closed()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody but the test trusts: its file, and the server's context."""
    return untrusted_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def port(free_port):
    return free_port


@pytest.fixture
async def sending(tmp_path, sqlite_url, port, run_provider):
    """An AuthService that sends to a mail server, with the user ada."""
    async with run_provider(tmp_path, sqlite_url, smtp_url=f"smtp://127.0.0.1:{port}") as provider:
        await provider.add_user("ada")
        yield provider


async def write(provider, letter=LETTER, to="ada@home.test", *, later=0, **options):
    now = provider.service.clock.micros() + later * 1_000_000

    def put(connection):
        outbox.put(connection, letter, to=to, user_id=None, now=now, **options)

    await provider.service.database.transact(put)


async def waiting(provider):
    return await provider.service.database.read(lambda connection: connection.execute(select(tables.mails)).all())


async def try_again(provider):
    """What a minute later would happen by itself."""

    def due(connection):
        connection.execute(update(tables.mails).values(next_attempt_at=0))

    await provider.service.database.transact(due)
    provider.service.postman.wake()


async def lines(provider, what):
    rows = await provider.service.database.read(audit.page, Wanted(), None, 100)
    return [row for row in rows if row.what == what]


async def attempted(provider):
    return any(row.attempts for row in await waiting(provider))


async def gone(provider):
    return not await waiting(provider)


async def test_a_mail_leaves_and_its_row_with_it(sending, port):
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await write(sending)
        await wait_until(lambda: mailbox.received)
        await wait_until(lambda: gone(sending))
    (received,) = mailbox.received
    assert received["to"] == "ada@home.test"
    assert received["from"] == "event-based-svcs <no-reply@127.0.0.1>"
    assert received["subject"] == "Confirm your e-mail address"
    assert received["auto-submitted"] == "auto-generated"
    assert received.get_content_type() == "text/plain"
    assert "http://127.0.0.1:8001/verify-email?link=the-secret\r\n" in received.get_content()


async def test_whoever_puts_a_mail_wakes_the_postman(tmp_path, sqlite_url, port, run_provider, monkeypatch):
    monkeypatch.setattr(postman, "PAUSE_SECONDS", 600.0)
    mailbox = MailboxServer()
    async with (
        run_provider(tmp_path, sqlite_url, smtp_url=f"smtp://127.0.0.1:{port}") as provider,
        mail_server(port, mailbox),
    ):
        for number in (1, 2):
            await write(provider)
            await wait_until(lambda number=number: len(mailbox.received) == number)


async def test_while_the_server_is_down_a_mail_waits_and_leaves_later(sending, port):
    await write(sending)
    await wait_until(lambda: attempted(sending))
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await try_again(sending)
        await wait_until(lambda: mailbox.received)
        await wait_until(lambda: gone(sending))


async def test_what_is_refused_for_now_is_tried_again_later_each_time(sending, port):
    mailbox = MailboxServer()
    mailbox.answer = "451 Try again later"
    async with mail_server(port, mailbox):
        await write(sending)
        await wait_until(lambda: attempted(sending))
        first = (await waiting(sending))[0]
        assert first.next_attempt_at - first.created_at >= 60 * 1_000_000
        await try_again(sending)

        async def twice():
            return (await waiting(sending))[0].attempts == 2

        await wait_until(twice)
        assert (await waiting(sending))[0].next_attempt_at - first.next_attempt_at >= 59 * 1_000_000
        mailbox.answer = "250 OK"
        await try_again(sending)
        await wait_until(lambda: gone(sending))
    assert len(mailbox.received) == 1
    assert await lines(sending, "mail.given-up") == []


async def test_what_is_refused_for_good_is_given_up_with_a_line_in_the_audit(sending, port):
    mailbox = MailboxServer()
    mailbox.answer = "550 No such mailbox ada@home.test"
    async with mail_server(port, mailbox):
        await write(sending)
        await wait_until(lambda: gone(sending))
    (line,) = await lines(sending, "mail.given-up")
    assert line.detail == '{"kind": "verify", "why": "refused (550)"}'
    assert "home.test" not in line.detail


async def test_one_refused_mail_holds_up_no_other(sending, port):
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await write(sending, to="no address")
        await write(sending)
        await wait_until(lambda: mailbox.received)
        await wait_until(lambda: gone(sending))
    assert len(await lines(sending, "mail.given-up")) == 1


async def test_an_address_that_the_server_cannot_write_to_holds_up_no_other(sending, port):
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await write(sending, to="ada@h\u00e4me.test")
        await write(sending)
        await wait_until(lambda: mailbox.received)
        await wait_until(lambda: gone(sending))
    (line,) = await lines(sending, "mail.given-up")
    assert "the mail server takes no such address" in line.detail


async def test_a_letter_that_is_no_mail_holds_up_no_other(sending, port):
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await write(sending, texts.upstream_connected("ada", "Example\nBcc: mallory@evil.test"))
        await write(sending)
        await wait_until(lambda: mailbox.received)
        await wait_until(lambda: gone(sending))
    (line,) = await lines(sending, "mail.given-up")
    assert "the letter is none" in line.detail


async def test_a_mail_that_nobody_wants_any_more_is_given_up(sending, port):
    await write(sending, expires_at=1)
    await wait_until(lambda: gone(sending))
    assert len(await lines(sending, "mail.given-up")) == 1


async def test_of_many_senders_one_sends_a_mail(provider_on_both):
    provider = provider_on_both
    await provider.service.postman.stop()
    await write(provider)
    now = provider.service.clock.micros()
    claimed = await asyncio.gather(*(provider.service.database.transact(outbox.claim, now) for _ in range(20)))
    assert len([mail for mail in claimed if mail is not None]) == 1


async def test_a_server_that_asks_who_we_are_is_told_over_tls_only(certificate, port, monkeypatch, subtests):
    path, context = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    mail = waiting_mail()
    for scheme, implicit in (("smtp", False), ("smtps", True)):
        with subtests.test(scheme=scheme):
            mailbox = MailboxServer()
            # This server does not count implicit TLS as TLS.
            secured = {"auth_require_tls": False} if implicit else {"auth_required": True}
            options = secured | {"authenticator": mailbox.authenticate}
            chosen = MailServer.of_url(f"{scheme}://ada:mail%20password@127.0.0.1:{port}")
            async with mail_server(port, mailbox, tls=context, implicit=implicit, **options):
                await chosen.send(mail, message_of(mail, sender_of(AuthSettings()), "http://127.0.0.1:8001"))
            assert mailbox.users == [(b"ada", b"mail password")]
            assert len(mailbox.received) == 1


async def test_beyond_loopback_nothing_is_sent_without_tls(port):
    mail, mailbox = waiting_mail(), MailboxServer()
    assert MailServer.of_url("smtp://mail.example.org").must_start_tls
    assert not MailServer.of_url("smtp://localhost:2525").must_start_tls
    strict = MailServer("127.0.0.1", port, implicit_tls=False, must_start_tls=True)
    async with mail_server(port, mailbox):
        with pytest.raises(MailDelayed):
            await strict.send(mail, message_of(mail, sender_of(AuthSettings()), "http://127.0.0.1:8001"))
    assert mailbox.received == []


async def test_a_server_that_says_nothing_is_left_after_a_while(port, monkeypatch):
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 0.2)
    mail, silent = waiting_mail(), []
    server = await asyncio.start_server(lambda reader, writer: silent.append(writer), "127.0.0.1", port)
    with pytest.raises(MailDelayed) as delayed:
        await MailServer.of_url(f"smtp://127.0.0.1:{port}").send(
            mail, message_of(mail, sender_of(AuthSettings()), "http://127.0.0.1:8001")
        )
    assert delayed.value.unreachable
    for writer in silent:
        writer.close()
    server.close()


async def test_a_server_that_takes_its_time_has_a_mail_once_and_holds_up_no_other(sending, port, monkeypatch):
    """Who gives up while a server takes a mail sends it again (RFC 5321 section 4.5.3.2.6): some scan for a minute."""
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 1.5)
    monkeypatch.setattr(postman, "PATIENCE_SECONDS", 2.0)
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        mailbox.scanned.clear()
        await write(sending)
        await wait_until(lambda: mailbox.received)
        await write(sending, to="bob@home.test")
        await wait_until(lambda: len(mailbox.received) == 2)
        mailbox.scanned.set()
        await wait_until(lambda: gone(sending))
    assert [received["to"] for received in mailbox.received] == ["ada@home.test", "bob@home.test"]


async def test_an_attempt_is_over_before_another_postman_may_begin_one(port, monkeypatch):
    assert outbox.ATTEMPT_SECONDS < outbox.CLAIM_SECONDS
    monkeypatch.setattr(transport, "ATTEMPT_SECONDS", 0.3)
    monkeypatch.setattr(transport, "GOODBYE_SECONDS", 0.1)
    mail, mailbox = waiting_mail(), MailboxServer()
    mailbox.scanned.clear()
    async with mail_server(port, mailbox):
        with pytest.raises(MailDelayed):
            await MailServer.of_url(f"smtp://127.0.0.1:{port}").send(
                mail, message_of(mail, sender_of(AuthSettings()), "http://127.0.0.1:8001")
            )
        mailbox.scanned.set()


async def test_a_mail_that_was_taken_while_the_database_was_away_is_not_sent_again(sending, port, monkeypatch):
    monkeypatch.setattr(postman, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(outcome, "AWAY_SECONDS", 0.01)
    transact, away = sending.service.database.transact, [DatabaseUnavailable("away")] * 2

    async def transact_once_back(function, *args):
        if function is outbox.forget and away:
            raise away.pop()
        return await transact(function, *args)

    monkeypatch.setattr(sending.service.database, "transact", transact_once_back)
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await write(sending)
        await wait_until(lambda: gone(sending))
    assert (len(mailbox.received), away) == (1, [])


async def test_a_mail_is_not_sent_again_where_the_database_is_away_longer_than_anybody_is_patient(
    sending, port, monkeypatch
):
    monkeypatch.setattr(postman, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(outcome, "AWAY_SECONDS", 0.01)
    monkeypatch.setattr(postman, "PATIENCE_SECONDS", 0.0)
    database, away = sending.service.database, [DatabaseUnavailable("away")] * 6
    transact, read = database.transact, database.read

    async def transact_once_back(function, *args):
        if function is outbox.forget and away:
            raise away.pop()
        return await transact(function, *args)

    async def read_once_back(function, *args):
        if function is outbox.is_due and mailbox.received and away:
            raise away.pop()
        return await read(function, *args)

    monkeypatch.setattr(database, "transact", transact_once_back)
    monkeypatch.setattr(database, "read", read_once_back)
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await write(sending)
        await wait_until(lambda: gone(sending))
    assert (len(mailbox.received), away) == (1, [])


async def test_what_goes_wrong_with_a_mail_is_told_without_its_text_and_holds_up_no_other(
    sending, port, monkeypatch, caplog, subtests
):
    async def send(self, mail, message):
        if mail.recipient == "grace@home.test":
            return await take(self, mail, message)
        await went_on.wait()
        raise RuntimeError(f"nobody thought of {mail.recipient} and {mail.body}")

    take = transport.MailServer.send
    monkeypatch.setattr(transport.MailServer, "send", send)
    for patience in (20.0, 0.0):  # the postman waits for it, or has gone on
        with subtests.test(patience=patience):
            monkeypatch.setattr(postman, "PATIENCE_SECONDS", patience)
            mailbox, went_on = MailboxServer(), asyncio.Event()
            caplog.clear()
            async with mail_server(port, mailbox):
                await write(sending)
                await wait_until(lambda: sending.service.postman._under_way)
                await write(sending, to="grace@home.test")
                if not patience:
                    await wait_until(lambda mailbox=mailbox: mailbox.received)
                went_on.set()
                await wait_until(lambda mailbox=mailbox: mailbox.received)
                await wait_until(lambda: "an unexpected RuntimeError" in caplog.text)
            assert "in send" in caplog.text, "it says where"
            assert "never retrieved" not in caplog.text
            for secret in ("the-secret", "home.test"):
                assert secret not in caplog.text


async def test_what_became_of_a_mail_is_kept_once_the_database_is_back(sending, port, monkeypatch, subtests):
    """What a server said is kept whatever it was: a mail that is refused for ever would be tried again."""
    monkeypatch.setattr(outcome, "AWAY_SECONDS", 0.01)
    transact = sending.service.database.transact
    for answer, keeping in (("250 OK", outbox.forget), ("550 no", outbox.give_up), ("451 later", outbox.postpone)):
        with subtests.test(answer):
            away, kept = [DatabaseUnavailable("away")] * 2, []

            async def transact_once_back(function, *args, away=away, kept=kept, keeping=keeping):
                if function is keeping and away:
                    raise away.pop()
                done = await transact(function, *args)
                kept.extend([function] if function is keeping else [])
                return done

            monkeypatch.setattr(sending.service.database, "transact", transact_once_back)
            mailbox = MailboxServer()
            mailbox.answer = answer
            async with mail_server(port, mailbox):
                await write(sending)
                await wait_until(lambda kept=kept: kept)
            assert away == []


async def test_a_mail_that_a_server_takes_as_the_service_stops_is_not_sent_again(sending, port):
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        mailbox.scanned.clear()
        await write(sending)
        await wait_until(lambda: mailbox.received)
        stopping = asyncio.create_task(sending.begin_again())
        await wait_until(lambda: sending.service.postman._stopping)
        mailbox.scanned.set()
        await stopping
        await wait_until(lambda: gone(sending))
    assert len(mailbox.received) == 1


async def test_a_mail_that_nobody_took_until_the_service_had_stopped_is_not_claimed_any_more(
    sending, port, monkeypatch
):
    monkeypatch.setattr(postman, "DRAIN_SECONDS", 0.01)
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        mailbox.scanned.clear()
        await write(sending)
        await wait_until(lambda: mailbox.received)
        await sending.begin_again()
        mailbox.scanned.set()
        (mail,) = await waiting(sending)
        soon = sending.service.clock.micros() + outbox.FIRST_RETRY_SECONDS * outbox.MICROS
        assert (mail.attempts, mail.next_attempt_at <= soon) == (1, True)


async def test_a_mail_that_a_clock_ahead_put_off_leaves_at_once(sending, port):
    mailbox = MailboxServer()
    async with mail_server(port, mailbox):
        await write(sending, later=24 * 3600)
        await wait_until(lambda: gone(sending))
    assert len(mailbox.received) == 1


async def test_a_folder_that_cannot_be_written_to_delays_a_mail(tmp_path):
    (tmp_path / "mail").write_text("no folder")
    mail = waiting_mail()
    with pytest.raises(MailDelayed, match="cannot be written to") as delayed:
        await MailFolder(tmp_path / "mail").send(mail, message_of(mail, sender_of(AuthSettings()), "http://auth.test"))
    assert delayed.value.unreachable


async def test_a_certificate_nobody_vouches_for_gets_no_mail(certificate, port):
    _, context = certificate
    mail, mailbox = waiting_mail(), MailboxServer()
    async with mail_server(port, mailbox, tls=context, implicit=True):
        with pytest.raises(MailDelayed) as delayed:
            await MailServer.of_url(f"smtps://127.0.0.1:{port}").send(
                mail, message_of(mail, sender_of(AuthSettings()), "http://127.0.0.1:8001")
            )
    assert delayed.value.unreachable
    assert mailbox.received == []


async def test_without_a_mail_server_mails_are_files_that_only_we_may_read(provider, caplog):
    await write(provider)
    folder = provider.settings.mails
    await wait_until(lambda: gone(provider))
    (path,) = folder.glob("*.eml")
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "http://127.0.0.1:8001/verify-email?link=the-secret\n" in path.read_text()
    assert "the-secret" not in caplog.text
    assert "home.test" not in caplog.text


def test_a_service_that_others_reach_says_that_nobody_gets_its_mails(caplog):
    transport_of(AuthSettings(auth_url="https://auth.example.org"))
    assert "EVS_SMTP_URL is not set" in caplog.text
    caplog.clear()
    transport_of(AuthSettings())
    assert caplog.text == ""


@pytest.mark.parametrize("address", ["a@b.test\r\nBcc: eve@evil.test", "a, b@c.test", "<a@b.test>", "", "a@"])
def test_an_address_cannot_say_more_than_an_address(address):
    with pytest.raises(MailRefused):
        message_of(waiting_mail(recipient=address), sender_of(AuthSettings()), "http://127.0.0.1:8001")


@pytest.mark.parametrize(
    "url", ["http://mail.test", "smtp://", "mail.test:25", "smtp://u:hunter2@mail.test/box", "smtp://u:hunter2@m:port"]
)
def test_a_wrong_mail_server_is_refused_without_telling_its_password(url):
    with pytest.raises(SettingsRejected, match="EVS_SMTP_URL must be smtp://") as refused:
        transport_of(AuthSettings(smtp_url=url))
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(AuthSettings(smtp_url=url))


async def test_a_wrong_sender_is_refused_at_the_start(tmp_path, sqlite_url):
    settings = AuthSettings(data=tmp_path / "evs", auth_database_url=sqlite_url, mail_from="nobody")
    with pytest.raises(SettingsRejected, match="EVS_MAIL_FROM"):
        async with open_service(settings):
            pass


def test_mails_come_from_whom_the_settings_name():
    assert str(sender_of(AuthSettings(mail_from="Sign-in <hello@example.org>"))) == "Sign-in <hello@example.org>"


def waiting_mail(recipient="ada@home.test"):
    return WaitingMail("id", LETTER.kind, None, recipient, LETTER.subject, LETTER.body, 0, 1, 0)
