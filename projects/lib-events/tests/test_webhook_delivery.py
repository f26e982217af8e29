"""Webhooks over real sockets on both databases: nothing is lost, and nobody is held up by another."""

import asyncio
import ipaddress
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import BaseModel
from sqlalchemy import func, select
from standardwebhooks import Webhook as Verifier

from lib_events.clock import SystemClock
from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, read_after
from lib_events.handling import dead_letters as dead
from lib_events.handling.subscriptions import Subscriptions
from lib_events.http.destinations import Destinations
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.sealed import SealingKey
from lib_events.tables import dead_letters, handled_events, subscription_cursors, webhook_deliveries
from lib_events.testing import wait_until
from lib_events.testing.receiver import receiving, status
from lib_events.webhooks.delivery import SENDING_AT_ONCE, Webhooks
from lib_events.webhooks.health import DELIVERIES_KEPT, Patience
from lib_events.webhooks.sender import Sender
from lib_events.webhooks.webhook import (
    OWNER_LIMIT,
    NewWebhook,
    TooManyWebhooks,
    change,
    create,
    find,
    new_id,
    new_secret,
    pause,
    remove,
    resume,
    rotate,
    set_owner_roles,
)

LOOPBACK = Destinations((ipaddress.ip_network("127.0.0.0/8"),))
KEY = SealingKey(SealingKey.generate())
QUICK = Patience(
    retry_seconds=(0.02,) * 4, failures_in_a_row=3, first_interruption_seconds=0.05, last_interruption_seconds=0.2
)


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)


def may_read(webhook, event):
    return "operator" in webhook.owner_roles or event.extensions.get("principal") == webhook.owner


class Delivering:
    """A database with webhooks that are delivered."""

    def __init__(self, database, webhooks, judged):
        self.database = database
        self.webhooks = webhooks
        self.judged = judged  # the ids of events of which it was decided whether the owner may read them
        self.secrets = {}

    async def add(self, url, *, types=("test.*",), subject=None, owner="alice", roles=("operator",)):
        webhook_id, secret = new_id(), new_secret()
        self.secrets[webhook_id] = secret
        new = NewWebhook(
            id=webhook_id,
            url=url,
            types=types,
            subject=subject,
            owner=owner,
            owner_roles=roles,
            secret=KEY.seal(secret, purpose=f"webhook:{webhook_id}"),
        )
        return await self.database.transact(create, new)

    async def publish(self, *numbers, subject=None, **extensions):
        made = [Event.of(Noted, Note(number=number), source="/app-svc", subject=subject) for number in numbers]
        await self.database.write(
            events=[replace(event, extensions={**event.extensions, **extensions}) for event in made]
        )
        return [event.id for event in made]

    async def find(self, webhook):
        return await self.database.read(find, webhook.id)

    async def deliveries(self, webhook):
        mine = webhook_deliveries.c.webhook == webhook.id
        query = select(webhook_deliveries).where(mine).order_by(webhook_deliveries.c.id)
        return await self.database.read(lambda connection: connection.execute(query).all())

    async def letters(self):
        return await self.database.read(lambda connection: connection.execute(select(dead_letters)).all())

    async def told(self, *types):
        page = await self.database.read(lambda connection: read_after(connection, 0, types=types))
        return [placed.event for placed in page.events]

    async def is_interrupted(self, webhook):
        return (await self.find(webhook)).interrupted_until is not None


@asynccontextmanager
async def delivering(url, *, patience=QUICK, timeout_seconds=5.0):
    database = await open_database(url, service="app-svc", schemas=[SCHEMA])
    subscriptions, judged = Subscriptions(database, []), []

    def judge(webhook, event):
        judged.append(event.id)
        return may_read(webhook, event)

    async with Sender(LOOPBACK, timeout_seconds=timeout_seconds) as sender:
        webhooks = Webhooks(database, subscriptions, sender=sender, key=KEY, may_read=judge, patience=patience)
        async with running(Relay(database, None), subscriptions, webhooks):
            yield Delivering(database, webhooks, judged)
    await database.close()


@pytest.fixture
async def hooks(database_url):
    async with delivering(database_url) as found:
        yield found


@pytest.fixture
async def receiver():
    async with receiving() as found:
        yield found


async def test_each_matching_event_after_the_creation_is_delivered_once_and_signed(hooks, receiver):
    await hooks.publish(1)
    webhook = await hooks.add(receiver.url, types=("test.*",), subject="mine")
    wanted = await hooks.publish(*range(2, 32), subject="mine")
    await hooks.publish(99, subject="other")
    await wait_until(lambda: len(receiver.received) == 30)
    assert sorted(receiver.event_ids) == sorted(wanted)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 30
    for received in receiver.received:
        Verifier(hooks.secrets[webhook.id]).verify(received.body, dict(received.headers))
    assert {(row.status, row.error, row.attempt) for row in await hooks.deliveries(webhook)} == {(204, None, 1)}


async def test_a_webhook_delivers_only_what_its_owner_may_read_at_that_moment(hooks, receiver):
    webhook = await hooks.add(receiver.url, roles=("member",))
    mine, *_ = await hooks.publish(1, principal="alice")
    await hooks.publish(2, principal="bob")
    (also_mine,) = await hooks.publish(3, principal="alice")
    await wait_until(lambda: len(receiver.received) == 2 and len(hooks.judged) == 3)
    await hooks.database.transact(set_owner_roles, "alice", ["operator"])
    (of_bob,) = await hooks.publish(4, principal="bob")
    await wait_until(lambda: len(receiver.received) == 3)
    await hooks.database.transact(set_owner_roles, "alice", ["member"])
    await hooks.publish(5, principal="bob")
    (last,) = await hooks.publish(6, principal="alice")
    await wait_until(lambda: len(receiver.received) == 4)
    assert sorted(receiver.event_ids) == sorted([mine, also_mine, of_bob, last])
    assert (await hooks.find(webhook)).owner_roles == ("member",)


async def test_a_failed_event_is_tried_again_with_the_same_id_while_others_go_on(hooks, receiver):
    webhook = await hooks.add(receiver.url)
    (poison,) = await hooks.publish(1)

    async def answer(received, writer):
        code = 500 if received.event.id == poison and receiver.event_ids.count(poison) < 3 else 204
        await status(code)(received, writer)

    receiver.answer = answer
    others = await hooks.publish(*range(2, 12))
    await wait_until(lambda: receiver.event_ids.count(poison) == 3 and set(others) <= set(receiver.event_ids))
    tries = [received for received in receiver.received if received.event.id == poison]
    assert len({received.headers["webhook-id"] for received in tries}) == 1

    async def attempts():
        return [row.attempt for row in await hooks.deliveries(webhook) if row.event_id == poison]

    await wait_until(lambda: is_equal(attempts, [1, 2, 3]))
    await wait_until(lambda: is_equal(hooks.letters, []))
    assert await hooks.told("evs.dead-letter.*") == []


async def is_equal(read, expected):
    return await read() == expected


async def test_an_event_that_fails_too_often_is_a_dead_letter_of_that_webhook_and_is_redriven(hooks, receiver):
    webhook = await hooks.add(receiver.url)
    (poison,) = await hooks.publish(1)
    is_bad = True

    async def answer(received, writer):
        await status(500 if is_bad and received.event.id == poison else 204)(received, writer)

    receiver.answer = answer

    async def buried():
        await hooks.publish(2)  # a success in between: the webhook is not interrupted
        return await hooks.told("evs.dead-letter.buried")

    (told,) = await wait_until(buried)
    (letter,) = await hooks.letters()
    assert (letter.durable, letter.event_id, letter.attempts) == (webhook.durable, poison, 5)
    assert (letter.redriven_at, letter.deferred_attempts) == (None, 0)
    assert letter.error == "GiveUp: the receiver answered 500"
    assert told.data["event_id"] == poison
    is_bad = False
    await hooks.database.transact(dead.redrive, letter.id)
    await wait_until(lambda: is_equal(hooks.letters, []))
    assert receiver.event_ids.count(poison) == 6


async def test_a_retry_that_is_due_much_later_survives_a_restart(database_url, receiver):
    patience = replace(QUICK, retry_seconds=(3600.0, 3600.0))
    receiver.answer = status(500)
    async with delivering(database_url, patience=patience) as hooks:
        webhook = await hooks.add(receiver.url)
        (event_id,) = await hooks.publish(1)
        (letter,) = await wait_until(hooks.letters)
        assert letter.deferred_attempts == 1
    receiver.answer = status(204)
    async with delivering(database_url, patience=patience) as hooks:
        (second,) = await hooks.publish(2)
        await wait_until(lambda: receiver.event_ids == [event_id, second])
        await hooks.database.transact(dead.redrive, letter.id)  # nobody needs to wait for the hour
        await wait_until(lambda: receiver.event_ids == [event_id, second, event_id])
        await wait_until(lambda: is_equal(hooks.letters, []))
        assert [row.attempt for row in await hooks.deliveries(webhook)] == [1, 1, 2]


async def test_a_failing_receiver_is_left_alone_then_probed_with_one_event_then_gets_everything(database_url, receiver):
    patience = replace(QUICK, first_interruption_seconds=0.5, last_interruption_seconds=0.5)
    async with delivering(database_url, patience=patience) as hooks:
        receiver.answer = status(503)
        webhook = await hooks.add(receiver.url)
        ids = await hooks.publish(*range(40))
        await wait_until(lambda: hooks.told("evs.webhook.interrupted"))
        until = (await hooks.find(webhook)).interrupted_until
        at_once, most, probes = 0, 0, 0

        async def probe(received, writer):
            nonlocal at_once, most, probes
            if SystemClock().micros() >= until:  # before, it is one of those that were on their way
                at_once, probes = at_once + 1, probes + 1
                most = max(most, at_once)
                await asyncio.sleep(0.02)
                at_once -= 1
            await status(503)(received, writer)

        receiver.answer = probe
        await wait_until(lambda: probes >= 2)
        assert most == 1
        first_attempts = len(receiver.received) - probes
        assert first_attempts <= 3 + 4
        assert await hooks.is_interrupted(webhook)
        receiver.answer = status(204)
        await wait_until(lambda: set(ids) <= set(receiver.event_ids[first_attempts:]), timeout=30)
        await wait_until(lambda: hooks.told("evs.webhook.recovered"))
        assert not await hooks.is_interrupted(webhook)
        assert len(await hooks.told("evs.webhook.interrupted")) == 1
        assert {event.extensions["principal"] for event in await hooks.told("evs.webhook.*")} == {"alice"}


async def test_a_receiver_that_asks_to_wait_is_left_alone_so_long(hooks, receiver):
    receiver.answer = status(429, retry_after="600")
    webhook = await hooks.add(receiver.url)
    await hooks.publish(1)
    await wait_until(lambda: hooks.is_interrupted(webhook))
    (letter,) = await wait_until(hooks.letters)
    until = (await hooks.find(webhook)).interrupted_until
    receiver.answer = status(204)
    await hooks.publish(2)
    assert until - letter.dead_at > 590 * 1_000_000
    assert letter.redriven_at - letter.dead_at > 590 * 1_000_000
    assert len(receiver.received) == 1
    await hooks.database.transact(resume, webhook.id)  # somebody knows better
    await wait_until(lambda: len(receiver.received) == 2)


async def test_410_disables_the_webhook_and_the_event_rests(hooks, receiver):
    receiver.answer = status(410)
    webhook = await hooks.add(receiver.url)
    await hooks.publish(1)
    await wait_until(lambda: hooks.told("evs.webhook.disabled"))
    (letter,) = await wait_until(hooks.letters)
    assert (letter.error, letter.redriven_at) == ("GiveUp: the receiver answered 410", None)
    assert (await hooks.find(webhook)).state == "disabled"
    await hooks.publish(2)
    receiver.answer = status(204)
    await hooks.database.transact(resume, webhook.id)
    await wait_until(lambda: len(receiver.received) == 2)


async def test_a_slow_receiver_holds_up_no_other(database_url, receiver):
    async with receiving() as slow, delivering(database_url, timeout_seconds=60) as hooks:

        async def hang(_received, _writer):
            await asyncio.Event().wait()

        slow.answer = hang
        await hooks.add(slow.url)
        await hooks.add(receiver.url)
        await hooks.publish(*range(50))
        await wait_until(lambda: len(receiver.received) == 50)  # while the slow one is still borne with
        assert len(slow.received) == 4


async def test_what_is_paused_waits_and_goes_on_where_it_stood(hooks, receiver):
    webhook = await hooks.add(receiver.url)
    await hooks.publish(1)
    await wait_until(lambda: len(receiver.received) == 1)
    await hooks.database.transact(pause, webhook.id, "for now")
    ids = await hooks.publish(2, 3)
    other = await hooks.add(receiver.url + "/other")
    await hooks.publish(4)
    await wait_until(lambda: any(received.target == "/hook/other" for received in receiver.received))
    assert [received.target for received in receiver.received].count("/hook") == 1
    await hooks.database.transact(remove, other.id)
    await hooks.database.transact(resume, webhook.id)
    await wait_until(lambda: set(ids) <= {found.event.id for found in receiver.received if found.target == "/hook"})


async def test_a_changed_url_counts_from_the_next_attempt_on(hooks, receiver):
    receiver.answer = status(500)
    webhook = await hooks.add(receiver.url)
    (event_id,) = await hooks.publish(1)
    await wait_until(lambda: receiver.received)
    async with receiving() as elsewhere:
        await hooks.database.transact(change, webhook.id, {"url": elsewhere.url})
        await wait_until(lambda: event_id in elsewhere.event_ids)


async def test_after_a_rotation_both_secrets_sign_for_as_long_as_they_overlap(hooks, receiver):
    webhook = await hooks.add(receiver.url)
    new = new_secret()
    sealed = KEY.seal(new, purpose=webhook.durable)
    await hooks.database.transact(rotate, webhook.id, sealed)
    await hooks.publish(1)
    await wait_until(lambda: len(receiver.received) == 1)
    for secret in (hooks.secrets[webhook.id], new):
        Verifier(secret).verify(receiver.received[0].body, dict(receiver.received[0].headers))
    await hooks.database.transact(rotate, webhook.id, sealed, timedelta(0))
    await hooks.publish(2)
    await wait_until(lambda: len(receiver.received) == 2)
    assert len(receiver.received[1].headers["webhook-signature"].split()) == 1


async def test_a_secret_that_cannot_be_unsealed_fails_the_delivery_and_says_so(hooks, receiver):
    webhook = await hooks.add(receiver.url)
    strange = SealingKey(SealingKey.generate()).seal("whsec_AAAA", purpose=webhook.durable)
    await hooks.database.transact(rotate, webhook.id, strange)
    outcome = await hooks.webhooks.test(await hooks.find(webhook))
    assert "sealed with another key" in outcome.error
    assert receiver.received == []


async def test_a_deleted_webhook_leaves_nothing_behind(hooks, receiver):
    receiver.answer = status(500)
    webhook = await hooks.add(receiver.url)
    await hooks.publish(1, 2)
    await wait_until(hooks.letters)
    await hooks.database.transact(remove, webhook.id)

    async def rows():
        tables = (subscription_cursors, handled_events, dead_letters, webhook_deliveries)
        counts = [select(func.count()).select_from(table) for table in tables]
        return await hooks.database.read(lambda connection: [connection.scalar(count) for count in counts])

    await wait_until(lambda: is_equal(rows, [0, 0, 0, 0]))
    (told,) = await hooks.told("evs.webhook.deleted")
    assert told.data == {"webhook": webhook.id, "owner": "alice", "state": "active", "reason": None}


async def test_a_test_is_sent_at_once_even_to_a_paused_webhook_and_changes_nothing(hooks, receiver):
    webhook = await hooks.add(receiver.url)
    await hooks.database.transact(pause, webhook.id)
    paused = await hooks.find(webhook)
    receiver.answer = status(500)
    outcome = await hooks.webhooks.test(paused)
    assert (outcome.status, outcome.error) == (500, "the receiver answered 500")
    assert receiver.received[0].event.type == "evs.webhook.tested"
    assert await hooks.find(webhook) == paused
    assert [row.event_type for row in await hooks.deliveries(webhook)] == ["evs.webhook.tested"]


async def test_only_the_last_deliveries_are_kept(hooks, receiver):
    webhook = await hooks.add(receiver.url)
    ids = await hooks.publish(*range(DELIVERIES_KEPT + 20))
    await wait_until(lambda: set(ids) <= set(receiver.event_ids), timeout=30)

    assert await wait_until(lambda: delivered_last(hooks, webhook, ids)) <= DELIVERIES_KEPT + SENDING_AT_ONCE


async def delivered_last(hooks, webhook, ids):
    """How many deliveries are kept, once none of the first ones is."""
    rows = await hooks.deliveries(webhook)
    return len(rows) if not {row.event_id for row in rows} & set(ids[:10]) else 0


async def test_an_owner_has_so_many_webhooks_at_most(hooks):
    for _ in range(OWNER_LIMIT):
        await hooks.add("https://example.org")
    with pytest.raises(TooManyWebhooks):
        await hooks.add("https://example.org")
    await hooks.add("https://example.org", owner="bob")


def test_a_secret_is_in_no_text_of_a_webhook():
    sealed = KEY.seal("whsec_c2VjcmV0", purpose="webhook:1")
    assert b"c2VjcmV0" not in sealed
    assert KEY.unseal(sealed, purpose="webhook:1") == "whsec_c2VjcmV0"
    new = NewWebhook(
        id="1", url="https://x", types=("*",), subject=None, owner="a", owner_roles=(), secret=b"sealed-secret"
    )
    assert "sealed-secret" not in repr(new)
