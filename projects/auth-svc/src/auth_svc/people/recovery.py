"""Lost passwords: whoever reads an account's mails may choose a new one; nobody learns whether there is an account.

Asking only writes a row, whatever was typed. What becomes of it is decided afterwards, by a loop.
"""

import logging

from sqlalchemy import delete, insert, select

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.mail import outbox, texts
from auth_svc.opaque import new_id
from auth_svc.people import accounts, mail_links
from auth_svc.people.accounts import Account
from auth_svc.people.addresses import email_key
from auth_svc.people.mail_links import LinkSpent, MailLink
from auth_svc.tables import recoveries
from lib_events.clock import Clock
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop

logger = logging.getLogger(__name__)

LONGEST_WANTED = 254
MAILS_AN_HOUR = 3  # for one account, whoever asks: a stranger must not fill its mailbox
PAUSE_SECONDS = 2.0


def ask(connection: Connection, wanted: str, actor: Actor) -> None:
    """Keep that somebody forgot a password; `wanted` is a user name or an e-mail address."""
    values = {"id": new_id(), "wanted": wanted[:LONGEST_WANTED], "address": actor.address, "created_at": actor.at}
    connection.execute(insert(recoveries).values(values))


def answer(connection: Connection, now: int) -> bool:
    """Send a link to whom the oldest request means, if to anybody; returns whether there was a request."""
    oldest = select(recoveries).order_by(recoveries.c.created_at).limit(1).with_for_update(skip_locked=True)
    row = connection.execute(oldest).one_or_none()
    if row is None:
        return False
    connection.execute(delete(recoveries).where(recoveries.c.id == row.id))
    # A user name may look like somebody else's address: both get a mail.
    found = accounts.find_by_username(connection, row.wanted), accounts.find_by_email(connection, row.wanted)
    for user_id in {account.id for account in found if account is not None}:
        account = accounts.lock(connection, user_id)  # nothing is kept of, or sent to, who is just being deleted
        if account is not None:
            _send_link(connection, account, Actor(now, address=row.address))
    return True


def recover(connection: Connection, secret: str, password_hash: str, actor: Actor) -> Account:
    """Set the password of a link's account, whose sign-ins all end; raises `LinkSpent`."""
    link = mail_links.use(connection, "recover", secret, actor.at)
    account = accounts.lock(connection, link.user_id)
    if account is None or not may_recover(account, link.email_key):
        raise LinkSpent
    own = Actor(actor.at, account.id, actor.address)
    audit.record(connection, own, "user.recovered", about=account.id)
    return accounts.set_password(connection, account.id, password_hash, own)


def may_recover(account: Account, key: str) -> bool:
    """Whether mails to the address of `key` still reach the account's person."""
    return account.enabled and account.email is not None and account.email_verified and email_key(account.email) == key


class RecoveryDesk(Loop):
    """Answers the requests that wait."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(name="recovery desk")
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Answer all there are, then look again a little later."""
        while True:
            while await self._database.read(_is_asked) and await self._database.transact(answer, self._clock.micros()):
                pass
            await self.pause(PAUSE_SECONDS)


def _is_asked(connection: Connection) -> bool:
    return connection.scalar(select(recoveries.c.id).limit(1)) is not None


def _send_link(connection: Connection, account: Account, actor: Actor) -> None:
    if account.email is None or not account.email_verified or not account.enabled:
        return
    link = MailLink(account.id, account.email, email_key(account.email))
    if mail_links.issued_lately(connection, "recover", link, actor.at) >= MAILS_AN_HOUR:
        logger.info("user %s gets no further mail this hour to recover the password", account.id)
        return
    secret = mail_links.issue(connection, "recover", link, actor.at)
    letter, until = texts.recover_password(account.username, secret), mail_links.expiry("recover", actor.at)
    outbox.put(connection, letter, to=account.email, user_id=account.id, now=actor.at, expires_at=until)
    audit.record(connection, actor, "user.recovery-asked", about=account.id)
