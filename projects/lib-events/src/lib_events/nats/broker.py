"""The way to NATS JetStream: one connection that heals, pipelined publishing, durable imports.

JetStream is a path, never the truth: whoever publishes keeps the event log, whoever imports decides by
the inbox. So everything here may fail and be tried again.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats.errors
from nats.aio.client import Client, Server
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError, ServiceUnavailableError

from lib_events.lifecycle import Loop
from lib_events.nats.access import CLOSE_SECONDS, NatsAccess, NatsClient, nats_access
from lib_events.nats.permissions import API, MAX_AGE_SECONDS, import_prefix, inbox_prefix, stream_name, stream_settings
from lib_events.nats.pull import PullEnded, pulling
from lib_events.settings import Settings

logger = logging.getLogger(__name__)

MESSAGE_ID = "Nats-Msg-Id"
PREVIOUS_MESSAGE_ID = "Nats-Expected-Last-Msg-Id"
CONTENT_TYPE = "content-type"
BATCH_LIMIT = 1_000
ASKING_STEP = 100
ANSWER_SECONDS = 2.0  # a broker that is silent for longer has lost its leader or hangs
PING_SECONDS = 2
CONNECT_ROUND_SECONDS = 5.0
FIRST_RECONNECT_SECONDS = 0.1
LAST_RECONNECT_SECONDS = 2.0
REDELIVER_SECONDS = 10.0
UNACKNOWLEDGED_LIMIT = 5_000


class BrokerAway(Exception):
    """NATS cannot be reached now: what was asked for is not done, or nobody knows."""


class NoStream(Exception):
    """A stream is not there: the service to import from has never been here, or nobody made ours."""


class PublishFailed(Exception):
    """A message of a batch was refused or not acknowledged; the ones before it may be stored."""


# Whatever goes wrong on the way to NATS: log it, wait, try again.
BROKER_ERRORS = (BrokerAway, NoStream, PublishFailed, PullEnded, nats.errors.Error)


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish: `id` deduplicates it; the stream must end with `previous_id`, if given."""

    subject: str
    id: str
    body: bytes
    content_type: str
    previous_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would break out of its place in the protocol."""
        text = f"{self.subject}{self.id}{self.content_type}{self.previous_id}"
        if not text.isprintable() or " " in text:
            raise ValueError(f"a message's subject and headers must have no spaces or line breaks, got {text!r}")


@dataclass(frozen=True, slots=True)
class StreamState:
    """Where a stream stands; `last_sequence` 0 means that it has never held anything."""

    last_sequence: int
    last_message_id: str | None
    last_body: bytes | None = None


@dataclass(slots=True)
class ImportPlace:
    """How far a stream is imported, by whom imports it: the sequence, and the life of our consumer that it is of.

    A stream that was made anew has another consumer, and its sequences mean other messages.
    """

    sequence: int | None = None  # None: nobody has written that down
    consumer: str | None = None


@dataclass(slots=True)
class _Batch:
    done: asyncio.Future[None]
    pending: set[str] = field(default_factory=set)

    async def wait(self) -> None:
        """Return when all are acknowledged; a slow disk may take its time while it takes one after the other."""
        before = len(self.pending) + 1
        while not self.done.done():
            if len(self.pending) == before:
                raise PublishFailed(f"{before} messages were not acknowledged in time")
            before = len(self.pending)
            await asyncio.wait([self.done], timeout=ANSWER_SECONDS)
        await self.done

    def acknowledge(self, token: str, error: Exception | None) -> None:
        self.pending.discard(token)
        if error is not None:
            self.fail(error)
        elif not self.pending and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Broker(Loop):
    """One service's connection to NATS: made in the background, kept for ever."""

    cleanup_seconds = CLOSE_SECONDS + 1

    def __init__(
        self,
        access: NatsAccess | str,
        *,
        service: str,
        seed_file: Path | None = None,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        super().__init__(name=f"broker of {service}")
        self.service = service
        self.connections = 0  # how often we connected: what is known of the server is void after each
        self._access = access if isinstance(access, NatsAccess) else NatsAccess.parse(access, seed_file=seed_file)
        self.max_age_seconds = max_age_seconds
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._lost: asyncio.Future[None] | None = None  # done when the present connection is no more
        self._callbacks: list[Callable[[], None]] = []
        # Guessed by nobody: others may have the server answer them into any inbox of a shared account.
        self._acknowledgements = f"{inbox_prefix(service)}.ack.{secrets.token_hex(8)}."
        self._batches: dict[str, _Batch] = {}
        self._batch_number = 0

    @classmethod
    def of_settings(cls, settings: Settings, service: str) -> Self | None:
        """The broker of `service` by its settings, None where there is no NATS; raises `SettingsRejected`."""
        access = nats_access(settings, service)
        return cls(access, service=service) if access else None

    async def close(self) -> None:
        """Disconnect; closing twice is safe."""
        await self.stop()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether NATS can be reached now."""
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Wait, without bound, until NATS can be reached."""
        await self._connected.wait()

    def on_connected(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each connection made; returns the way to stop."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    @property
    def max_payload(self) -> int:
        """The largest body the server takes, in bytes."""
        return self._require().max_payload

    async def run(self) -> None:
        """Connect, then hold the connection; a client that gives up (a refused key) is replaced."""
        client, closed = await self._connect()
        self._client = client
        try:
            await client.subscribe(f"{self._acknowledgements}*.*", cb=self._on_acknowledgement)
            await self._on_connected()
            await closed.wait()
        finally:
            await self._on_disconnected()
            self._client = None
            await client.close()
        raise BrokerAway(f"NATS closed the connection: {client.last_error}")

    async def _connect(self) -> tuple[Client, asyncio.Event]:
        """Try until NATS is there; each round reads the key anew and tries less often."""
        delay = FIRST_RECONNECT_SECONDS
        while True:
            client, closed = NatsClient(), asyncio.Event()
            try:
                async with asyncio.timeout(CONNECT_ROUND_SECONDS):
                    await client.connect(
                        **self._access.connect_options(),
                        name=self.service,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=delay,  # type: ignore[arg-type]  # fractions work
                        reconnect_to_server_handler=_next_server,
                        ping_interval=PING_SECONDS,
                        inbox_prefix=inbox_prefix(self.service),
                        error_cb=self._on_error,
                        disconnected_cb=self._on_disconnected,
                        reconnected_cb=self._on_connected,
                        closed_cb=_setter(closed),
                    )
            except (OSError, TimeoutError, nats.errors.Error) as error:
                logger.warning("%s waits for NATS: %s", self.service, client.last_error or error)
                delay = min(delay * 2, LAST_RECONNECT_SECONDS)
            else:
                return client, closed
            finally:
                if not client.is_connected:
                    await client.close()

    async def ensure_stream(self) -> None:
        """Make the stream that captures what this service publishes, or give it our settings."""
        jetstream, name = self._jetstream(), stream_name(self.service)
        wanted = stream_settings(self.service, replicas=self._access.replicas, max_age_seconds=self.max_age_seconds)
        try:
            found = (await self._ask(jetstream.stream_info(name))).config
        except NotFoundError:
            await self._make_stream(jetstream, StreamConfig(name=name).evolve(**wanted))
            return
        if any(getattr(found, key) != value for key, value in wanted.items()):
            try:
                await self._ask(jetstream.update_stream(found.evolve(**wanted)))
            except nats.errors.TimeoutError:  # the answer to whoever has no permission
                logger.warning("the stream %s keeps its settings: we may not change them", name)

    async def _make_stream(self, jetstream: JetStreamContext, config: StreamConfig) -> None:
        try:
            await self._ask(jetstream.add_stream(config))
        except nats.errors.TimeoutError:  # the answer to whoever has no permission
            raise NoStream(
                f"the stream {config.name} must be made by the bundled server, or by an operator with "
                "`python -m lib_events.nats_operator streams`; we may not"
            ) from None

    async def publish_batch(self, messages: Sequence[Message]) -> None:
        """Publish `messages` without waiting between them; returns once every one is acknowledged.

        Raises `PublishFailed` when one is refused or unanswered, `BrokerAway` when the connection goes.
        """
        if len(messages) > BATCH_LIMIT:
            raise ValueError(f"a batch must have at most {BATCH_LIMIT} messages, got {len(messages)}")
        if not messages:
            return
        client = self._require()
        self._batch_number += 1
        number = str(self._batch_number)
        asking = _asking(messages)
        batch = _Batch(asyncio.get_running_loop().create_future(), {str(index) for index in asking})
        self._batches[number] = batch
        try:
            reply = f"{self._acknowledgements}{number}."
            commands = b"".join(
                _command(message, f"{reply}{index}" if index in asking else "")
                for index, message in enumerate(messages)
            )
            # Not client.publish: checking and flushing message by message costs five times the sending.
            await client._send_command(commands)
            await client._flush_pending()
            await batch.wait()
        except nats.errors.Error as error:
            raise PublishFailed(str(error)) from error
        finally:
            del self._batches[number]
            batch.done.cancel()

    async def stream_state(self) -> StreamState:
        """Where our own stream stands: what to publish next, and whether its store was lost."""
        jetstream, name = self._jetstream(), stream_name(self.service)
        state = (await self._ask(jetstream.stream_info(name))).state
        if not state.messages:
            return StreamState(state.last_seq, None)
        last = await self._ask(jetstream.get_msg(name, state.last_seq))
        return StreamState(state.last_seq, (last.headers or {}).get(MESSAGE_ID), last.data)

    async def imports(
        self, service: str, subjects: Sequence[str], place: ImportPlace | None = None
    ) -> AsyncGenerator[list[Msg]]:
        """Follow the stream of `service` by our durable consumer: batches; acknowledging a message takes all before.

        What is not acknowledged comes again, and so does what was and lies behind `place`, which is told its consumer.
        Raises one of `BROKER_ERRORS` when the connection goes, `NoStream` while that service has none.
        """
        stream, prefix = stream_name(service), import_prefix(service)
        jetstream = self._jetstream(prefix)
        try:
            place = place or ImportPlace()
            config, delivered = await self._consumer_config(jetstream, stream, place)
            place.consumer = config.description
            await self._ask(jetstream.add_consumer(stream, config.evolve(filter_subjects=list(subjects))))
        except (NotFoundError, ServiceUnavailableError):
            raise NoStream(f"{service} has not made its stream {stream} yet, or it is not open to us") from None
        subject = f"{prefix}.CONSUMER.MSG.NEXT.{stream}.{self.service}"
        async with pulling(self._require(), subject, delivered=delivered) as pull:
            while True:
                yield await self._ask(pull.take())

    async def _consumer_config(
        self, jetstream: JetStreamContext, stream: str, place: ImportPlace
    ) -> tuple[ConsumerConfig, int]:
        """Continue our consumer, and say how many deliveries it has made.

        One that waits for lost acknowledgements begins anew where they end: otherwise what was under way would come
        again only later, and after what follows it. So does one that has acknowledged more than is imported; one of a
        life that is not known where that is written begins at the stream's beginning.
        """
        fresh = ConsumerConfig(
            description=secrets.token_hex(8),
            name=self.service,
            durable_name=self.service,
            ack_policy=AckPolicy.ALL,
            ack_wait=REDELIVER_SECONDS,
            max_ack_pending=UNACKNOWLEDGED_LIMIT,
        )
        try:
            found = await self._ask(jetstream.consumer_info(stream, self.service))
        except NotFoundError:
            return fresh, 0
        life = found.config.description or fresh.description
        if place.consumer not in (None, life):
            await self._ask(jetstream.delete_consumer(stream, self.service))
            return fresh, 0
        floor = found.ack_floor.stream_seq if found.ack_floor is not None else 0
        begin_after = floor if place.sequence is None else min(floor, place.sequence)
        if found.ack_floor is None or (not found.num_ack_pending and begin_after == floor):
            delivered = found.delivered.consumer_seq if found.delivered is not None else 0
            return found.config.evolve(description=life), delivered
        await self._ask(jetstream.delete_consumer(stream, self.service))
        begin = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": begin_after + 1}
        return fresh.evolve(description=life, **begin), 0

    def _require(self) -> Client:
        if self._client is None or not self.connected:
            raise BrokerAway(f"NATS must be reachable at {self._access}, and is not now")
        return self._client

    def _jetstream(self, prefix: str = API) -> JetStreamContext:
        return JetStreamContext(self._require(), prefix=prefix, timeout=ANSWER_SECONDS)

    async def _ask[T](self, question: Coroutine[Any, Any, T]) -> T:
        """Await an answer from the server, but no longer than the connection lasts."""
        task = asyncio.ensure_future(question)
        lost = self._lost
        if lost is None:
            task.cancel()
            raise BrokerAway("the connection to NATS was lost")
        try:
            await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise BrokerAway("the connection to NATS was lost")
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _on_acknowledgement(self, message: Msg) -> None:
        number, _, token = message.subject.removeprefix(self._acknowledgements).partition(".")
        batch = self._batches.get(number)
        if batch is not None:
            batch.acknowledge(token, _refusal(message))

    async def _on_connected(self) -> None:
        self._lost = asyncio.get_running_loop().create_future()
        self.connections += 1
        self.error = None
        self._connected.set()
        logger.info("%s is connected to NATS", self.service)
        for callback in tuple(self._callbacks):
            callback()

    async def _on_disconnected(self) -> None:
        if not self.connected:
            return
        self._connected.clear()
        if self._lost is not None:
            self._lost.set_result(None)
            self._lost = None
        for batch in self._batches.values():
            batch.fail(BrokerAway("the connection to NATS was lost before the acknowledgement"))
        logger.warning("%s has lost NATS; events are kept and published later", self.service)

    async def _on_error(self, error: Exception) -> None:
        # While connecting this repeats itself; when connected it is news, a refused permission for one.
        logger.log(logging.WARNING if self.connected else logging.DEBUG, "NATS: %s", error)


def _setter(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def set_event() -> None:
        event.set()

    return set_event


def _asking(messages: Sequence[Message]) -> set[int]:
    """The messages to be acknowledged: the next one in a chain speaks for all before, as it is stored after them only.

    Now and then one is asked for besides, to see a slow broker get on.
    """
    last = len(messages) - 1
    return {
        index
        for index, message in enumerate(messages)
        if index == last or messages[index + 1].previous_id != message.id or index % ASKING_STEP == ASKING_STEP - 1
    }


def _command(message: Message, reply: str) -> bytes:
    """The protocol's HPUB command; subject and ids hold no spaces and line breaks, as `Message` promises."""
    lines = f"NATS/1.0\r\n{MESSAGE_ID}: {message.id}\r\n{CONTENT_TYPE}: {message.content_type}\r\n"
    if message.previous_id is not None:
        lines += f"{PREVIOUS_MESSAGE_ID}: {message.previous_id}\r\n"
    headers = lines.encode() + b"\r\n"
    size = len(headers)
    first = f"HPUB {message.subject} {reply} {size} {size + len(message.body)}\r\n"
    return b"%b%b%b\r\n" % (first.encode(), headers, message.body)


def _refusal(message: Msg) -> PublishFailed | None:
    if message.headers and message.headers.get("Status") == "503":
        return PublishFailed("no stream captures what we publish")
    if b'"error"' not in message.data:
        return None
    error = json.loads(message.data).get("error")
    return PublishFailed(f"JetStream refused a message: {error['description']}") if error else None


def _next_server(pool: list[Server], _information: dict[str, Any]) -> tuple[Server | None, float]:
    """Try the server tried least, waiting longer each round."""
    server = min(pool, key=lambda candidate: candidate.reconnects)
    delay = FIRST_RECONNECT_SECONDS * 2 ** min(server.reconnects, 10)
    return server, min(delay, LAST_RECONNECT_SECONDS) if server.reconnects else 0
