"""The inbox: other services' events, copied from their streams into our own event log, each once.

The row in our log *is* the imported event, so subscriptions, triggers and feed see it like our own. The
unique (source, id) decides what is new; an acknowledgement that gets lost costs one more look at it. How far a
stream is imported is a row, too: where the consumer remembers more than a database that was restored, it begins again.
"""

import logging
from collections.abc import Sequence
from contextlib import aclosing

from nats.aio.msg import Msg
from sqlalchemy import select

from lib_events.clock import SystemClock, to_micros
from lib_events.database import EVENTS_TOPIC, Connection, Database
from lib_events.event import Event, EventRegistry, EventRejected, check_attributes, check_readable
from lib_events.event_log import IMPORT_EVENTS
from lib_events.handling.dead_letters import REDRIVE_TOPIC, Burial, bury, bury_again, redriven, settle
from lib_events.lifecycle import Loop, for_ever, running
from lib_events.nats.broker import BROKER_ERRORS, MESSAGE_ID, Broker, ImportPlace, NoStream
from lib_events.nats.permissions import subject_prefix
from lib_events.statement import Statement, Write
from lib_events.tables import SEGMENT_TYPE, import_places
from lib_events.texts import fit

logger = logging.getLogger(__name__)

PUT_IMPORT_PLACE = Statement.load(
    "lib_events", "put_import_place", {"source": "text", "sequence": "bigint", "consumer": "text"}
)
REDRIVE_POLL_SECONDS = 30.0  # only for what a lost notification would have told
RETRY_SECONDS = 0.5
ID_CHARACTERS = 200  # of a message's id, in a dead letter; ours are short


class Importer(Loop):
    """Imports from the services `sources` the event types `types` (names or patterns ending in `.*`).

    Of all processes on one database one imports, so that the events of a service keep their order.
    """

    def __init__(
        self,
        database: Database,
        broker: Broker,
        *,
        sources: Sequence[str],
        types: Sequence[str],
        registry: EventRegistry,
    ) -> None:
        super().__init__(name="importer")
        self._database = database
        self._imports = [_SourceImport(database, broker, source, types, registry) for source in sources]

    async def run(self) -> None:
        """Wait to lead, then import until the lead is lost."""
        redrives = [_ImportRedrive(self._database, source) for source in self._imports]
        async with self._database.leading("importer"), running(*self._imports, *redrives):
            await for_ever()


class _SourceImport(Loop):
    """Imports from one service."""

    def __init__(
        self, database: Database, broker: Broker, source: str, types: Sequence[str], registry: EventRegistry
    ) -> None:
        super().__init__(name=f"import from {source}")
        self._database = database
        self._broker = broker
        self._source = source
        self._subjects = subjects_of(source, types)
        self._registry = registry

    async def run(self) -> None:
        while True:
            await self._broker.wait_connected()
            try:
                place = await self._database.read(_place_of, self._source)
                async with aclosing(self._broker.imports(self._source, self._subjects, place)) as batches:
                    async for batch in batches:
                        await self._take_in(batch, place)
            except NoStream:
                logger.debug("%s has published nothing yet", self._source)
            except BROKER_ERRORS as error:
                logger.warning("importing from %s stopped, again in %.1f s: %s", self._source, RETRY_SECONDS, error)
            await self.pause(RETRY_SECONDS)

    async def _take_in(self, batch: Sequence[Msg], place: ImportPlace) -> None:
        accepted: list[Write] = []
        refused: list[tuple[Msg, EventRejected]] = []
        for message in batch:
            try:
                if not message.subject.endswith(f".{SEGMENT_TYPE}"):  # segments never trigger anything
                    accepted.append(self.read(message.data, message.subject))
            except EventRejected as error:
                refused.append((message, error))
        if refused:
            await self._database.transact(self._bury, refused)
        reached = Write(PUT_IMPORT_PLACE, (self._source, batch[-1].metadata.sequence.stream, place.consumer))
        await self._database.write(*accepted, reached, topics=[EVENTS_TOPIC] if accepted else [])
        await batch[-1].ack()  # and with it all before

    def read(self, body: bytes, subject: str | None = None) -> Write:
        """Return the row of an event, if this service may say it and it is what its type promises."""
        event = Event.from_json(body)
        if event.source != f"/{self._source}":
            raise EventRejected(
                "forged_source",
                f"source must be '/{self._source}' on its stream, got {event.source!r}",
                event_type=event.type,
                field="source",
            )
        if subject is not None and subject != f"{subject_prefix(self._source)}.{event.type}":
            raise EventRejected(
                "malformed", f"type must be the subject's, got {event.type!r}", event_type=event.type, field="type"
            )
        check_attributes(event)
        check_readable(body)
        self._registry.check(event)
        return _row(event, body)

    def _bury(self, connection: Connection, refused: Sequence[tuple[Msg, EventRejected]]) -> None:
        for message, error in refused:
            logger.error("refused an event of %s: %s", self._source, error)
            sequence = message.metadata.sequence.stream
            message_id = (message.headers or {}).get(MESSAGE_ID, "")[:ID_CHARACTERS]
            event_type = None if error.event_type is None else fit(error.event_type)  # as little checked as the rest
            burial = Burial(self.name, sequence, message_id, event_type, message.data, attempts=1)
            bury(connection, burial, error)


class _ImportRedrive(Loop):
    """Lets in what was refused, once somebody has edited it or this service knows its type."""

    def __init__(self, database: Database, source: _SourceImport) -> None:
        super().__init__(name=f"redrive of {source.name}")
        self._database = database
        self._source = source

    async def run(self) -> None:
        unsubscribe = self._database.on_notify(REDRIVE_TOPIC, self.wake)
        try:
            while True:
                for letter in await self._database.read(redriven, self._source.name, SystemClock().micros()):
                    await self._database.transact(self._let_in, letter.id, letter.body)
                await self.pause(REDRIVE_POLL_SECONDS)
        finally:
            unsubscribe()

    def _let_in(self, connection: Connection, letter_id: int, body: bytes) -> None:
        try:
            row = self._source.read(body)
        except EventRejected as error:
            bury_again(connection, letter_id, error, attempts=1, now=SystemClock().micros())
            return
        if settle(connection, letter_id):
            connection.write(row)
            connection.notify(EVENTS_TOPIC)


def _place_of(connection: Connection, source: str) -> ImportPlace:
    """Up to where the stream of `source` is here."""
    found = connection.execute(select(import_places).where(import_places.c.source == source)).first()
    return ImportPlace() if found is None else ImportPlace(found.sequence, found.consumer)


def _row(event: Event, body: bytes) -> Write:
    """The row of an event as it came: encoding it again would say the same, later."""
    return Write(
        IMPORT_EVENTS,
        (
            *(event.id, event.source, event.type, event.subject, to_micros(event.time)),
            *(event.extensions.get("correlationid"), True, 1, body),
        ),
    )


def subjects_of(service: str, types: Sequence[str]) -> list[str]:
    """The NATS subjects of event type patterns, without those that another one covers (JetStream refuses overlap)."""
    wanted = [pattern for pattern in dict.fromkeys(types) if not any(_covers(other, pattern) for other in types)]
    prefix = subject_prefix(service)
    return [f"{prefix}.{pattern[:-1]}>" if pattern.endswith("*") else f"{prefix}.{pattern}" for pattern in wanted]


def _covers(pattern: str, other: str) -> bool:
    return pattern != other and pattern.endswith("*") and other.startswith(pattern[:-1])
