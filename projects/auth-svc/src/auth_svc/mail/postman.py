"""Sends the mails that wait, one after another, again and again until each is taken or given up."""

import logging
from email.headerregistry import Address

from auth_svc.mail import outbox
from auth_svc.mail.outbox import WaitingMail
from auth_svc.mail.transport import MailDelayed, MailRefused, Transport, message_of
from lib_events.clock import Clock
from lib_events.database import Database
from lib_events.lifecycle import Loop

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0  # until a mail that nobody took is tried again


class Postman(Loop):
    """One per process; of several, each mail is sent by one."""

    def __init__(self, database: Database, transport: Transport, *, sender: Address, issuer: str, clock: Clock) -> None:
        super().__init__(name="postman")
        self.database = database
        self._transport = transport
        self._sender = sender
        self._issuer = issuer
        self._clock = clock

    async def run(self) -> None:
        """Send what is due, then pause until somebody has written a mail."""
        unsubscribe = self.database.on_notify(outbox.MAIL_TOPIC, self.wake)
        try:
            while True:
                while await self.database.read(outbox.is_due, self._clock.micros()) and await self._send_one():
                    pass
                await self.pause(PAUSE_SECONDS)
        finally:
            unsubscribe()

    async def _send_one(self) -> bool:
        """Returns whether it is worth trying the next."""
        mail = await self.database.transact(outbox.claim, self._clock.micros())
        if mail is None:
            return False
        if mail.expires_at <= self._clock.micros():
            await self._give_up(mail, "nobody took it in time")
            return True
        try:
            await self._transport.send(mail, message_of(mail, self._sender, self._issuer))
        except MailRefused as error:
            await self._give_up(mail, str(error))
        except MailDelayed as error:
            logger.warning("mail %s was not sent, attempt %d: %s", mail.id, mail.attempts, error)
            return not error.unreachable
        else:
            await self.database.transact(outbox.forget, mail.id)
        return True

    async def _give_up(self, mail: WaitingMail, why: str) -> None:
        logger.warning("mail %s (%s) for user %s is given up: %s", mail.id, mail.kind, mail.user_id, why)
        await self.database.transact(outbox.give_up, mail, why, self._clock.micros())
