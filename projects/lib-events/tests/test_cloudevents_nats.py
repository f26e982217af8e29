"""What lies on NATS follows the NATS binding of CloudEvents: a stranger with a plain client and the SDK reads it."""

import json
from datetime import UTC, datetime

import nats
from cloudevents.core.formats.json import JSONFormat
from nats.js.api import AckPolicy, ConsumerConfig
from pydantic import BaseModel

from lib_events.database import open_database
from lib_events.event import Cause, Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.http.cloudevents import BATCH, STRUCTURED
from lib_events.lifecycle import running
from lib_events.nats.broker import Broker
from lib_events.nats.permissions import import_prefix
from lib_events.nats.relay import Relay


class Order(BaseModel):
    sku: str


OrderPlaced = EventType("shop.order.placed", Order)
OrderTouched = EventType("shop.order.touched", Order, packed=True)


async def heard(server, count):
    """What a plain nats-py client with the key of another service hears."""
    seed = server.credentials("auth-svc").read_text().strip()
    client = await nats.connect(server.url, nkeys_seed_str=seed, inbox_prefix=b"_INBOX_auth-svc")
    jetstream = client.jetstream(prefix=import_prefix("app-svc"))
    config = ConsumerConfig(name="auth-svc", durable_name="auth-svc", ack_policy=AckPolicy.EXPLICIT)
    await jetstream.add_consumer("events-app-svc", config)
    subscription = await jetstream.pull_subscribe_bind(consumer="auth-svc", stream="events-app-svc")
    messages = []
    while len(messages) < count:
        messages += await subscription.fetch(count - len(messages), timeout=20)
    await client.close()
    return messages


async def test_the_foreign_sdk_reads_what_the_relay_has_published(fresh_nats_server, database_url):
    cause = Cause(correlation_id="story", principal="Jérôme 😀", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    time = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    told = [
        Event.of(OrderPlaced, Order(sku="grüner Tee"), source="/app-svc", subject='a "b" %', cause=cause, time=time),
        Event.of(OrderTouched, Order(sku="one"), source="/app-svc"),
        Event.of(OrderTouched, Order(sku="two"), source="/app-svc"),
    ]
    database = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    await database.write(events=told[:1])
    await database.write(events=told[1:])
    seed = fresh_nats_server.credentials("app-svc")
    async with (
        Broker(fresh_nats_server.url, service="app-svc", seed_file=seed) as broker,
        running(Relay(database, broker)),
    ):
        single, segment = await heard(fresh_nats_server, 2)
    await database.close()

    assert (single.subject, single.headers["content-type"]) == ("events.app-svc.shop.order.placed", STRUCTURED)
    found = JSONFormat().read(None, single.data)
    assert (found.get_id(), found.get_time(), found.get_subject()) == (told[0].id, time, 'a "b" %')
    assert (found.get_data(), found.get_extension("principal")) == ({"sku": "grüner Tee"}, "Jérôme 😀")
    assert found.get_extension("traceparent") == cause.traceparent

    assert (segment.subject, segment.headers["content-type"]) == ("events.app-svc.evs.run.segment", BATCH)
    batch = [JSONFormat().read(None, json.dumps(item)) for item in json.loads(segment.data)]
    assert [(one.get_id(), one.get_data()) for one in batch] == [(one.id, one.data) for one in told[1:]]
