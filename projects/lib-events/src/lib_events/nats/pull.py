"""What a durable consumer holds for us, as it comes: few requests, no work per message but nats-py's own.

nats-py's `fetch` waits for every single message with a timeout of its own, which costs more than storing it.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

BATCH = 1_000
WAIT_SECONDS = 5.0  # so long a request of somebody who died may take what comes
HEARTBEAT_SECONDS = 1.0
HEARTBEAT = "100"
# The request came to its end, and another one follows: nothing came in time, or its share of bytes is used up.
ENDED = ("404", "408", "Message Size Exceeds MaxBytes", "Batch Completed")
NANOSECONDS = 1_000_000_000


class PullEnded(Exception):
    """The server will not deliver any more: the consumer is gone, or its leader; begin anew."""


class Pull:
    """Takes messages from one consumer, at most a batch ahead of whoever works on them."""

    def __init__(self, client: Client, subject: str, inbox: str, *, delivered: int) -> None:
        self._client = client
        self._subject = subject
        self._inbox = inbox
        self._request = _request(max_bytes=2 * client.max_payload)
        self._arrived: list[Msg] = []
        self._something = asyncio.Event()
        self._expected = 0  # what the last request may still bring
        self._refusal: str | None = None
        self._next = delivered + 1  # the number of the consumer's next delivery

    async def take(self) -> list[Msg]:
        """Wait for messages and return all that arrived, at most one batch. Raises `PullEnded`."""
        while not self._arrived:
            await self._hear_more()
        if self._expected == 0:
            await self._ask()  # the next batch comes while this one is worked on
        taken, self._arrived = self._arrived, []
        self._check(taken)
        return taken

    def _check(self, taken: list[Msg]) -> None:
        """See that nobody else was given what lies before: acknowledging ours would acknowledge that, too."""
        first, last = (message.metadata.sequence.consumer for message in (taken[0], taken[-1]))
        if (first, last) != (self._next, self._next + len(taken) - 1):
            raise PullEnded(f"delivery {self._next} went elsewhere, got {first} to {last}")
        self._next = last + 1

    async def hear(self, message: Msg) -> None:
        """Take in a message or what the server says of the request."""
        headers = message.headers or {}
        status = None if message.data else headers.get("Status")
        if status is None:
            self._arrived.append(message)
            self._expected -= 1
        elif status in ENDED or headers.get("Description") in ENDED:
            self._expected = 0
        elif status != HEARTBEAT:
            self._refusal = headers.get("Description", status)
        self._something.set()

    async def _hear_more(self) -> None:
        if self._expected == 0:
            await self._ask()
        if self._refusal is not None:
            raise PullEnded(f"the consumer does not deliver: {self._refusal}")
        self._something.clear()
        try:
            async with asyncio.timeout(3 * HEARTBEAT_SECONDS):
                await self._something.wait()
        except TimeoutError:
            raise PullEnded("the consumer has been silent for too long") from None

    async def _ask(self) -> None:
        self._expected = BATCH
        await self._client.publish(self._subject, self._request, reply=self._inbox)


@asynccontextmanager
async def pulling(client: Client, subject: str, *, delivered: int) -> AsyncIterator[Pull]:
    """Pull by requests to `subject` inside the block, from a consumer that has made so many deliveries."""
    inbox = client.new_inbox()
    pull = Pull(client, subject, inbox, delivered=delivered)
    subscription = await client.subscribe(inbox, cb=pull.hear)
    try:
        yield pull
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()


def _request(*, max_bytes: int) -> bytes:
    return json.dumps(
        {
            "batch": BATCH,
            "max_bytes": max_bytes,
            "expires": int(WAIT_SECONDS * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * NANOSECONDS),
        }
    ).encode()
