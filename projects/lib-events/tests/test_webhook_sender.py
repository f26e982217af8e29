"""One delivery over a real socket: signed so that strangers believe it, never longer or larger than allowed."""

import asyncio
import datetime
import ipaddress
import ssl
from datetime import UTC, timedelta
from email.utils import format_datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook, WebhookVerificationError

from lib_events.clock import SystemClock, to_datetime
from lib_events.event import Event
from lib_events.http.destinations import Destinations
from lib_events.testing.receiver import Receiver, receiving, status
from lib_events.webhooks.sender import LONGEST_WAIT_SECONDS, Sender, message_id_of
from lib_events.webhooks.webhook import new_secret

LOOPBACK = Destinations((ipaddress.ip_network("127.0.0.0/8"),))


@pytest.fixture
async def receiver():
    async with receiving() as found:
        yield found


@pytest.fixture
async def sender():
    async with Sender(LOOPBACK, timeout_seconds=0.5) as found:
        yield found


def an_event(**values):
    return Event("1", "/shop", "shop.order.placed", to_datetime(SystemClock().micros()), data={"id": "42"} | values)


async def send(sender, receiver, *, event=None, secrets=None):
    return await sender.send(receiver.url, event or an_event(), message_id="msg_1", secrets=secrets or [new_secret()])


async def test_a_foreign_library_believes_the_signature_and_the_body_is_a_cloud_event(sender, receiver):
    secret, event = new_secret(), an_event(name="Ünïcode")
    outcome = await send(sender, receiver, event=event, secrets=[secret])
    (received,) = receiver.received
    assert (outcome.status, outcome.error) == (204, None)
    assert received.headers["content-type"] == "application/cloudevents+json"
    assert Webhook(secret).verify(received.body, dict(received.headers)) == event.to_dict()
    assert received.event == event
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(received.body, dict(received.headers))


async def test_while_a_secret_is_rotated_either_of_the_two_is_good(sender, receiver):
    old, new = new_secret(), new_secret()
    await send(sender, receiver, secrets=[new, old])
    (received,) = receiver.received
    for secret in (old, new):
        Webhook(secret).verify(received.body, dict(received.headers))


def test_a_message_id_stays_the_same_and_has_no_dot():
    assert message_id_of("webhook:1:/shop:a.b") == message_id_of("webhook:1:/shop:a.b")
    assert message_id_of("webhook:1:/shop:a.b") != message_id_of("webhook:2:/shop:a.b")
    assert "." not in message_id_of("webhook:1:/shop:a.b")


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 401, 404, 429, 500, 503])
async def test_only_2xx_is_success_and_a_redirect_leads_nowhere(sender, receiver, code):
    receiver.answer = status(code, location=receiver.url + "/elsewhere")
    outcome = await send(sender, receiver)
    assert outcome.status == code
    assert str(code) in outcome.error
    assert [received.target for received in receiver.received] == ["/hook"]


async def test_410_says_that_nothing_more_is_wanted(sender, receiver):
    receiver.answer = status(410)
    assert (await send(sender, receiver)).is_gone


@pytest.mark.parametrize(
    ("code", "value", "seconds"),
    [
        (503, "7", 7),
        (429, "0", 0),
        (503, "99999999999999", LONGEST_WAIT_SECONDS),
        (503, "-1", 0),
        (503, "soon", 0),
        (503, "²", 0),
        (500, "7", 0),
        (200, "7", 0),
    ],
)
async def test_a_receiver_may_ask_to_be_left_alone(sender, receiver, code, value, seconds):
    receiver.answer = status(code, retry_after=value)
    receiver.answer = status(code, retry_after=value.encode().decode("latin-1"))
    assert (await send(sender, receiver)).wait_seconds == seconds


async def test_it_may_name_a_date(sender, receiver):
    later = datetime.datetime.now(UTC) + timedelta(seconds=60)
    receiver.answer = status(503, retry_after=format_datetime(later, usegmt=True))
    assert 55 < (await send(sender, receiver)).wait_seconds <= 60


async def test_a_receiver_that_never_answers_is_left(sender, receiver):
    async def hang(_received, _writer):
        await asyncio.Event().wait()

    receiver.answer = hang
    outcome = await send(sender, receiver)
    assert outcome.error == "no answer within 0.5 s"
    assert 400_000 < outcome.duration_micros < 5_000_000


async def test_one_that_answers_drop_by_drop_too(sender, receiver):
    async def drip(_received, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    receiver.answer = drip
    assert (await send(sender, receiver)).error == "no answer within 0.5 s"


async def test_of_an_answer_of_100_megabytes_little_is_read(sender, receiver):
    sent = []

    async def flood(_received, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")
        for _ in range(1_600):
            writer.write(bytes(65_536))
            sent.append(65_536)
            await writer.drain()

    receiver.answer = flood
    outcome = await send(sender, receiver)
    assert (outcome.status, outcome.error) == (200, None)
    assert sum(sent) < 50 * 1024 * 1024


async def test_one_that_closes_early_has_received_nothing(sender, receiver):
    async def close(_received, writer):
        writer.write(b"HTTP/1.1 2")
        writer.close()

    receiver.answer = close
    outcome = await send(sender, receiver)
    assert (outcome.status, outcome.error.split(":")[0]) == (None, "the connection failed")


async def test_what_is_no_http_is_a_failed_connection(sender, receiver):
    async def chatter(_received, writer):
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()

    receiver.answer = chatter
    assert "connection failed" in (await send(sender, receiver)).error


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch, sender, receiver):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await send(sender, receiver)).status == 204


async def test_over_tls_the_name_is_checked_though_the_connection_goes_to_an_address(tmp_path):
    server_tls, client_tls = certificate_of("hooks.example", tmp_path)

    async def resolve(_host, _port):
        return ["127.0.0.1"]

    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    async with Sender(LOOPBACK, resolve=resolve, tls=client_tls) as sender:
        good = await sender.send(
            f"https://hooks.example:{port}/", an_event(), message_id="msg_1", secrets=[new_secret()]
        )
        wrong = await sender.send(
            f"https://other.example:{port}/", an_event(), message_id="msg_1", secrets=[new_secret()]
        )
    server.close()
    assert good.status == 204
    assert "CERTIFICATE_VERIFY_FAILED" in wrong.error
    assert len(receiver.received) == 1


def certificate_of(name, folder):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "certificate.pem").write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificate.pem")
    return server, ssl.create_default_context(cadata=pem.decode())
