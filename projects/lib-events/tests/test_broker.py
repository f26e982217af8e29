"""The connection to NATS: it heals, publishes in order and once, and imports what others publish."""

import asyncio
import shutil
import subprocess
from contextlib import aclosing

import pytest

from lib_events.nats.broker import BROKER_ERRORS, Broker, BrokerAway, Message, NoStream, PublishFailed
from lib_events.nats_server import NatsServer, server_binary
from lib_events.parent_watch import dying_with_us
from lib_events.testing import wait_until


def connect(server, service="app-svc"):
    return Broker(server.url, service=service, seed_file=server.credentials(service))


@pytest.fixture
def open_nats(tmp_path, free_port):
    """The URL of somebody else's server, where nobody has made streams for us and everybody may."""
    command = [server_binary(), "-js", "-a", "127.0.0.1", "-p", str(free_port), "-sd", str(tmp_path / "open")]
    with subprocess.Popen(dying_with_us(command), stderr=subprocess.DEVNULL) as process:
        yield f"nats://127.0.0.1:{free_port}"
        process.terminate()


def messages(numbers, *, chained=False, event_type="shop.order.placed"):
    return [
        Message(
            f"events.app-svc.{event_type}",
            f"1.{number}",
            str(number).encode(),
            "text/plain",
            previous_id=f"1.{number - 1}" if chained and number > 1 else None,
        )
        for number in numbers
    ]


async def imported(broker, service, count, subjects=("events.*.>",)):
    """Import and acknowledge at least `count` messages."""
    found = []
    async with asyncio.timeout(10), aclosing(broker.imports(service, subjects)) as batches:
        async for batch in batches:
            for message in batch:
                await message.ack_sync()
            found += [message.data.decode() for message in batch]
            if len(found) >= count:
                return found
    return found


async def test_a_batch_is_stored_in_order_and_a_repeated_one_only_once(fresh_nats_server):
    async with connect(fresh_nats_server) as broker, connect(fresh_nats_server, "auth-svc") as other:
        await asyncio.gather(broker.wait_connected(), other.wait_connected())
        await broker.ensure_stream()
        await broker.ensure_stream()
        batch = messages(range(1, 501), chained=True)
        await broker.publish_batch(batch)
        await broker.publish_batch(batch)
        state = await broker.stream_state()
        assert (state.last_sequence, state.last_message_id) == (500, "1.500")
        assert await imported(other, "app-svc", 500) == [str(number) for number in range(1, 501)]


async def test_a_gap_in_the_chain_is_refused(fresh_nats_server):
    async with connect(fresh_nats_server) as broker:
        await broker.wait_connected()
        await broker.ensure_stream()
        await broker.publish_batch(messages([1]))
        with pytest.raises(PublishFailed, match="last msg"):
            await broker.publish_batch(messages([3, 4], chained=True))
        assert (await broker.stream_state()).last_message_id == "1.1"


async def test_publishing_without_a_stream_fails_at_once(open_nats):
    async with Broker(open_nats, service="app-svc") as broker:
        await broker.wait_connected()
        with pytest.raises(PublishFailed, match="no stream"):
            await broker.publish_batch(messages([1]))


async def test_changed_settings_reach_the_stream(open_nats):
    for seconds in (3600.0, 7200.0):
        async with Broker(open_nats, service="app-svc", max_age_seconds=seconds) as broker:
            await broker.wait_connected()
            await broker.ensure_stream()
            info = await broker._jetstream().stream_info("events-app-svc")
            assert info.config.max_age == seconds


async def test_it_connects_when_the_server_comes_and_comes_back(tmp_path, free_port):
    server = NatsServer(tmp_path, port=free_port)
    async with server:
        pass  # makes the keys
    broker = connect(server)
    woken = []
    broker.on_connected(lambda: woken.append(broker.connections))
    async with broker:
        assert not broker.connected
        with pytest.raises(BrokerAway):
            await broker.publish_batch(messages([1]))
        async with server:
            await asyncio.wait_for(broker.wait_connected(), 10)
            await broker.ensure_stream()
            await broker.publish_batch(messages([1]))
        await wait_until(lambda: not broker.connected)
        shutil.rmtree(server.folder / "jetstream")
        async with server:
            await asyncio.wait_for(broker.wait_connected(), 10)
            await broker.ensure_stream()
            assert (await broker.stream_state()).last_sequence == 0
    assert woken == [1, 2]


async def test_losing_the_server_ends_what_waits_for_it(fresh_nats_server):
    async with connect(fresh_nats_server) as broker, connect(fresh_nats_server, "auth-svc") as other:
        await asyncio.gather(broker.wait_connected(), other.wait_connected())
        await broker.ensure_stream()
        waiting = asyncio.create_task(imported(other, "app-svc", 1))
        await wait_until(lambda: other._client.stats["out_msgs"] >= 2)
        await fresh_nats_server.stop()
        with pytest.raises(BROKER_ERRORS):  # a server that says good-bye answers before the line goes dead
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(BrokerAway):
            await broker.stream_state()


async def test_only_the_asked_subjects_are_imported_and_unacknowledged_ones_come_again(fresh_nats_server):
    async with connect(fresh_nats_server) as broker, connect(fresh_nats_server, "auth-svc") as other:
        await asyncio.gather(broker.wait_connected(), other.wait_connected())
        await broker.ensure_stream()
        await broker.publish_batch(messages([1], event_type="a.b") + messages([2], event_type="c"))
        async with aclosing(other.imports("app-svc", ["events.app-svc.c", "events.app-svc.d.>"])) as batches:
            (first,) = await anext(batches)
            await first.nak()
            (again,) = await anext(batches)
    assert (first.data, again.data, again.metadata.num_delivered) == (b"2", b"2", 2)


async def test_importing_from_a_service_that_was_never_here_says_so(open_nats):
    async with Broker(open_nats, service="app-svc") as broker:
        await broker.wait_connected()
        with pytest.raises(NoStream, match="auth-svc"):
            await imported(broker, "auth-svc", 1)


async def test_a_refused_key_is_tried_again_until_it_is_right(fresh_nats_server, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lib_events.nats.broker.CONNECT_ROUND_SECONDS", 0.3)
    seed_file = tmp_path / "seed"
    seed_file.write_text("SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4")
    async with Broker(fresh_nats_server.url, service="app-svc", seed_file=seed_file) as broker:
        await wait_until(lambda: "Authorization" in caplog.text)
        assert not broker.connected
        seed_file.write_bytes(fresh_nats_server.credentials("app-svc").read_bytes())
        await asyncio.wait_for(broker.wait_connected(), 15)
        await broker.ensure_stream()
        assert broker.connections == 1


@pytest.mark.parametrize("subject", ["events.app-svc.a b", "events.app-svc.a\r\nPUB"])
def test_a_message_cannot_break_out_of_its_place(subject):
    with pytest.raises(ValueError, match="must have no spaces"):
        Message(subject, "1.1", b"", "text/plain")


async def test_settings_a_service_may_not_change_stay_and_publishing_goes_on(fresh_nats_server, monkeypatch, caplog):
    monkeypatch.setattr("lib_events.nats.broker.ANSWER_SECONDS", 0.3)
    seed_file = fresh_nats_server.credentials("app-svc")
    async with Broker(fresh_nats_server.url, service="app-svc", seed_file=seed_file, max_age_seconds=60.0) as broker:
        await broker.wait_connected()
        await broker.ensure_stream()
        await broker.publish_batch(messages([1]))
    assert "keeps its settings" in caplog.text
