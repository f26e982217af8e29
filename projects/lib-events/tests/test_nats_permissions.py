"""Who may do what in NATS: a service tries to speak, listen and shape for others, on one server and on a cluster."""

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats
import pytest
import pytest_asyncio
from nats.js.api import ConsumerConfig
from nats.js.client import JetStreamContext

from lib_events.nats.access import NatsAccess
from lib_events.nats.permissions import accounts
from lib_events.nats_server import NatsServer
from lib_events.testing import wait_until
from lib_events.testing.cluster import NatsCluster

SERVICES = ("auth-svc", "app-svc", "gui-proj")
VICTIM = "events.auth-svc.evs.user.disabled"
IMPORT = "imports.auth-svc"


@dataclass
class Services:
    """A broker for three services, and how they reach it."""

    server: NatsServer | NatsCluster

    def access(self, service):
        if isinstance(self.server, NatsCluster):
            return self.server.access(service)
        return NatsAccess.parse(self.server.url, seed_file=service and self.server.credentials(service))

    @asynccontextmanager
    async def client(self, service):
        """A client with the key of `service`, and what the server complained of."""
        complaints = []

        async def heard(error):
            complaints.append(str(error).lower())

        options = self.access(service).connect_options()
        client = await nats.connect(**options, inbox_prefix=f"_INBOX_{service}", error_cb=heard)
        try:
            yield client, complaints
        finally:
            await client.close()

    async def refused(self, service, subject, body=b"{}"):
        """Publish and tell whether the server complained of the permission."""
        async with self.client(service) as (client, complaints):
            await client.publish(subject, body)
            await client.flush()
            await client.flush()
        return any("permissions violation" in complaint for complaint in complaints)

    async def victims_stream(self):
        """What the stream of auth-svc holds, as it sees it itself."""
        async with self.client("auth-svc") as (client, _):
            jetstream = client.jetstream(timeout=10)
            info = await jetstream.stream_info("events-auth-svc")
            found = [
                await jetstream.get_msg("events-auth-svc", sequence) for sequence in range(1, info.state.last_seq + 1)
            ]
        return info, [(message.subject, message.data) for message in found]


@pytest_asyncio.fixture(params=["bundled server", "cluster"])
async def services(request, tmp_path):
    kind = NatsServer if request.param == "bundled server" else NatsCluster
    async with kind(tmp_path, services=SERVICES) as server:
        yield Services(server)


async def test_a_service_publishes_its_own_events_and_nobody_elses(services):
    assert not await services.refused("app-svc", "events.app-svc.shop.order.placed")
    for service, subject in (
        ("app-svc", VICTIM),
        ("gui-proj", "events.app-svc.evs.run.completed"),
        ("app-svc", "events.evs.user.disabled"),
        ("app-svc", "_INBOX_auth-svc.1"),
    ):
        assert await services.refused(service, subject), subject
    assert (await services.victims_stream())[1] == []


async def test_no_answer_of_the_server_can_be_led_into_the_stream_of_another(services):
    """Whoever asks names the subject of the answer, and no permission is checked for it: the account ends there."""
    async with services.client("app-svc") as (client, _):
        jetstream = client.jetstream(timeout=10)
        forged = json.dumps({"specversion": "1.0", "type": "evs.user.disabled"}).encode()
        await jetstream.publish("events.app-svc.evil", forged, headers={"Nats-Msg-Id": "9.9"})
        for subject, body in (
            ("events.app-svc.evil", forged),
            ("$JS.API.STREAM.INFO.events-app-svc", b""),
            ("$JS.API.STREAM.MSG.GET.events-app-svc", b'{"seq":1}'),
            (f"{IMPORT}.CONSUMER.INFO.events-auth-svc.app-svc", b""),
        ):
            await client.publish(subject, body, reply=VICTIM)
        imported = JetStreamContext(client, prefix=IMPORT, timeout=10)
        await imported.add_consumer("events-auth-svc", ConsumerConfig(name="app-svc", durable_name="app-svc"))
        await client.publish(f"{IMPORT}.CONSUMER.MSG.NEXT.events-auth-svc.app-svc", b'{"batch":1}', reply=VICTIM)
        await client.flush()
        assert await imported.consumer_info("events-auth-svc", "app-svc")
    assert (await services.victims_stream())[1] == []


async def test_a_consumer_cannot_deliver_into_the_stream_it_reads(services):
    async with services.client("app-svc") as (client, _):
        config = {"name": "app-svc", "durable_name": "app-svc", "deliver_subject": VICTIM}
        body = json.dumps({"stream_name": "events-auth-svc", "config": config}).encode()
        answer = await client.request(f"{IMPORT}.CONSUMER.CREATE.events-auth-svc.app-svc", body, timeout=10)
        assert "forms a cycle" in answer.data.decode()


SHAPE = {"name": "events-app-svc", "subjects": ["events.app-svc.>"]}
SHAPES = {
    "republish": SHAPE | {"republish": {"src": "events.app-svc.>", "dest": "events.auth-svc.>"}},
    "source": {"name": "events-app-svc", "sources": [{"name": "events-auth-svc"}]},
    "mirror": {"name": "mirror", "mirror": {"name": "events-auth-svc"}},
    "subjects": {"name": "other", "subjects": ["events.auth-svc.>"]},
    "transform": SHAPE | {"subject_transform": {"src": "events.app-svc.>", "dest": "events.auth-svc.>"}},
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_service_shapes_a_stream(fresh_nats_server, shape):
    services, config = Services(fresh_nats_server), SHAPES[shape]
    for verb in ("CREATE", "UPDATE"):
        for prefix in ("$JS.API", IMPORT, "imports.app-svc"):
            subject = f"{prefix}.STREAM.{verb}.{config['name']}"
            assert await services.refused("app-svc", subject, json.dumps(config).encode()), subject


SHAPING = ("CREATE", "UPDATE", "DELETE", "PURGE", "RESTORE", "SNAPSHOT")
FORBIDDEN = (
    *(f"$JS.API.STREAM.{verb}.events-app-svc" for verb in SHAPING),
    *(f"$JS.API.STREAM.{verb}.events-auth-svc" for verb in SHAPING),
    "$JS.API.STREAM.MSG.DELETE.events-app-svc",
    "$JS.API.STREAM.MSG.GET.events-auth-svc",
    "$JS.API.STREAM.LEADER.STEPDOWN.events-app-svc",
    "$JS.API.DIRECT.GET.events-auth-svc",
    "$JS.API.CONSUMER.CREATE.events-app-svc.app-svc",
    f"{IMPORT}.STREAM.DELETE.events-auth-svc",
    f"{IMPORT}.STREAM.PURGE.events-auth-svc",
    f"{IMPORT}.STREAM.MSG.GET.events-auth-svc",
    *(f"{IMPORT}.CONSUMER.{verb}.events-auth-svc.gui-proj" for verb in ("CREATE", "DELETE", "INFO", "MSG.NEXT")),
    "$JS.ACK.events-auth-svc.gui-proj.1.1.1.1.0",
    "imports.gui-proj.CONSUMER.CREATE.events-auth-svc.app-svc",
    "$SYS.REQ.SERVER.PING",
)


async def test_a_service_deletes_purges_and_reads_nothing_of_others(services):
    allowed = [subject for subject in FORBIDDEN if not await services.refused("app-svc", subject)]
    assert allowed == []


async def test_a_service_cannot_listen_to_anything_but_its_inbox(services):
    async with services.client("gui-proj") as (client, complaints):
        for subject in (">", "events.>", "_INBOX_app-svc.>", "imports.>", "$JS.>"):
            await client.subscribe(subject)
        await client.flush()
        await wait_until(lambda: len(complaints) == 5)
    assert all("permissions violation" in complaint for complaint in complaints)


async def test_one_inbox_hears_nothing_of_what_another_is_told(services):
    async with services.client("auth-svc") as (auth, _), services.client("app-svc") as (app, complaints):
        heard = await auth.subscribe("_INBOX_auth-svc.>")
        await auth.flush()
        await app.publish("_INBOX_auth-svc.ack", b"+ACK")
        await app.publish("events.app-svc.x", b"", reply="_INBOX_auth-svc.ack")
        await app.flush()
        await auth.flush()
        with pytest.raises(TimeoutError):
            await heard.next_msg(timeout=0.3)
    assert complaints


async def test_a_service_imports_from_another_by_a_consumer_of_its_own_name(services):
    async with services.client("auth-svc") as (auth, _), services.client("app-svc") as (app, _):
        await auth.jetstream().publish(VICTIM, b"{}")
        imported = JetStreamContext(app, prefix=IMPORT, timeout=10)
        await imported.add_consumer("events-auth-svc", ConsumerConfig(name="app-svc", durable_name="app-svc"))
        pull = await imported.pull_subscribe_bind(consumer="app-svc", stream="events-auth-svc")
        (message,) = await pull.fetch(1, timeout=10)
        await message.ack_sync(timeout=10)
        assert message.subject == VICTIM


async def test_a_stranger_is_refused(services):
    for service in (None, "keeper-of-nothing"):
        options = services.access(None).connect_options()
        if service:
            options["user"], options["password"] = service, "guess"
        client = nats.NATS()

        async def nothing(_error):
            pass

        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await client.connect(**options, allow_reconnect=False, error_cb=nothing)
        await client.close()


def test_every_import_is_exported_to_that_account_alone():
    found = accounts({name: f"U{name}" for name in ("keeper", *SERVICES)})
    for name, account in found.items():
        for entry in account["imports"]:
            exports = found[entry["service"]["account"]]["exports"]
            (export,) = [export for export in exports if export["service"] == entry["service"]["subject"]]
            assert export["accounts"] == [name]
