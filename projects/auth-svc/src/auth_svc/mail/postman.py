"""Sends the mails that wait, one after another, again and again until each is taken or given up."""

import asyncio
import logging
from email.headerregistry import Address

from auth_svc import outcome
from auth_svc.mail import outbox
from auth_svc.mail.outbox import WaitingMail
from auth_svc.mail.transport import MailDelayed, MailRefused, Transport, message_of
from lib_events.clock import Clock
from lib_events.database import Database, DatabaseError
from lib_events.lifecycle import Loop

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0  # until a mail that nobody took is tried again
PATIENCE_SECONDS = 20.0  # the next does not wait any longer for a server that takes its time …
MOST_UNDER_WAY = 10  # … while they are fewer than that
DRAIN_SECONDS = 2.0  # for what is under way when the service is told to stop: most servers take a mail at once


class Postman(Loop):
    """One per process; of several, each mail is sent by one."""

    def __init__(self, database: Database, transport: Transport, *, sender: Address, issuer: str, clock: Clock) -> None:
        super().__init__(name="postman")
        self.database = database
        self._transport = transport
        self._sender = sender
        self._issuer = issuer
        self._clock = clock
        self._under_way: set[asyncio.Task[bool]] = set()

    def told_to_stop(self) -> float:
        """Claim no more; returns for how many seconds to wait for what is under way: it would be sent again."""
        self.wake()
        return DRAIN_SECONDS

    async def run(self) -> None:
        """Send what is due, then pause until somebody has written a mail, until told to stop."""
        unsubscribe = self.database.on_notify(outbox.MAIL_TOPIC, self.wake)
        try:
            while not self._stopping:
                await self._send_due()
                await self.pause(PAUSE_SECONDS)
            await asyncio.gather(*self._under_way, return_exceptions=True)
        finally:
            unsubscribe()
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _send_due(self) -> None:
        try:
            while not self._stopping and await self.database.read(outbox.is_due, self._clock.micros()):
                if not await self._send_next():
                    return
        except DatabaseError as error:  # what is under way goes on: it would be sent again
            logger.warning("the mails that wait cannot be read or kept: %s", error)

    async def _send_next(self) -> bool:
        """Returns whether it is worth trying the next."""
        if len(self._under_way) == MOST_UNDER_WAY:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        mail = await self.database.transact(outbox.claim, self._clock.micros())
        if mail is None:
            return False
        task = asyncio.create_task(self._send(mail), name=f"mail {mail.id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        return not task.done() or task.result()

    async def _send(self, mail: WaitingMail) -> bool:
        """Send a mail and keep what became of it; returns whether the others may fare better."""
        try:
            return await self._deliver(mail)
        except Exception as error:  # noqa: BLE001 - nobody may be waiting for this mail any more: it is told here
            outcome.unexpected(_called(mail), error)
            return True

    async def _deliver(self, mail: WaitingMail) -> bool:
        if mail.expires_at <= self._clock.micros():
            await self._give_up(mail, "nobody took it in time")
            return True
        try:
            await self._transport.send(mail, message_of(mail, self._sender, self._issuer))
        except MailRefused as error:
            await self._give_up(mail, str(error))
        except MailDelayed as error:
            logger.warning("mail %s was not sent, attempt %d: %s", mail.id, mail.attempts, error)
            await outcome.keep(self.database, _called(mail), outbox.postpone, mail, self._clock.micros())
            return not error.unreachable
        except asyncio.CancelledError:  # nobody sends it any more: whoever comes next need not wait for our claim
            await self.database.transact(outbox.postpone, mail, self._clock.micros())
            raise
        else:
            await outcome.keep(self.database, _called(mail), outbox.forget, mail.id)
        return True

    async def _give_up(self, mail: WaitingMail, why: str) -> None:
        logger.warning("%s for user %s is given up: %s", _called(mail), mail.user_id, why)
        await outcome.keep(self.database, _called(mail), outbox.give_up, mail, why, self._clock.micros())


def _called(mail: WaitingMail) -> str:
    return f"mail {mail.id} ({mail.kind})"
