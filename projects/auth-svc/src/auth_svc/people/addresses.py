"""E-mail addresses: written in many ways, proven by a link, and then one person's alone."""

import re
import unicodedata
from typing import Any

from sqlalchemy import Row, select

from auth_svc.mail import outbox, texts
from auth_svc.people import mail_links
from auth_svc.people.mail_links import MailLink
from auth_svc.tables import users
from lib_events.database import Connection

EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f<>()\[\]\\,;:\"]{1,64}@[^@\s\x00-\x1f\x7f<>()\[\]\\,;:\"]{1,190}")
VERIFICATIONS_AN_HOUR = 4


def email_key(email: str) -> str:
    """Fold an address: nobody has another mailbox by writing it in capitals."""
    return unicodedata.normalize("NFKC", email.strip()).casefold()


def owner_of(connection: Connection, email: str) -> Row[Any] | None:
    """The id and the user name of who has proven the address to be theirs, and how they write it."""
    proven = (users.c.email_key == email_key(email)) & users.c.email_verified_at.is_not(None)
    return connection.execute(select(users.c.id, users.c.username, users.c.email).where(proven)).one_or_none()


def ask(connection: Connection, user_id: str, username: str, email: str, now: int) -> bool:
    """Send the link that proves an address; False when it got, or the person had sent, too many of late.

    Whether the address is another person's already, only its owner learns: the mail says so instead.
    """
    link = MailLink(user_id, email, email_key(email))
    if mail_links.issued_lately(connection, "verify", link, now) >= VERIFICATIONS_AN_HOUR:
        return False
    secret = mail_links.issue(connection, "verify", link, now)
    owner = owner_of(connection, email)
    if owner is not None and owner.id != user_id:
        # To where it was proven: what folds to the same (ß to ss) may be a mailbox of somebody else.
        outbox.put(connection, texts.address_in_use(owner.username), to=owner.email, user_id=owner.id, now=now)
        return True
    letter, until = texts.verify_address(username, secret), mail_links.expiry("verify", now)
    outbox.put(connection, letter, to=email, user_id=user_id, now=now, expires_at=until)
    return True
