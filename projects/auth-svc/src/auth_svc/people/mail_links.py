"""Links in mails: whoever follows one reads the mails of an address; kept as digests, used once, soon over."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, func, insert, or_, select, update

from auth_svc.opaque import digest, new_secret
from auth_svc.tables import mail_links, users
from lib_events.database import Connection

type Purpose = Literal["verify", "recover"]

MICROS = 1_000_000
LIFETIME_SECONDS: dict[Purpose, int] = {"verify": 24 * 3600, "recover": 3600}
HOUR = 3600 * MICROS


class LinkSpent(Exception):
    """A link is unknown, over, replaced or was used."""


@dataclass(frozen=True, slots=True)
class MailLink:
    """What a link stands for."""

    user_id: str
    email: str
    email_key: str


def issue(connection: Connection, purpose: Purpose, link: MailLink, now: int) -> str:
    """Return the secret of a fresh link; the ones before it stop working."""
    _lock_person(connection, link.user_id)
    withdraw(connection, purpose, link.user_id, now)
    secret = new_secret()
    connection.execute(
        insert(mail_links).values(
            digest=digest(secret),
            purpose=purpose,
            user_id=link.user_id,
            email=link.email,
            email_key=link.email_key,
            created_at=now,
            expires_at=expiry(purpose, now),
        )
    )
    return secret


def expiry(purpose: Purpose, now: int) -> int:
    """When a link that is issued now is over."""
    return now + LIFETIME_SECONDS[purpose] * MICROS


def find(connection: Connection, purpose: Purpose, secret: str, now: int) -> MailLink:
    """Return what a link stands for; raises `LinkSpent`."""
    row = connection.execute(select(mail_links).where(_usable(purpose, secret, now))).one_or_none()
    if row is None:
        raise LinkSpent
    return _link(row)


def use(connection: Connection, purpose: Purpose, secret: str, now: int) -> MailLink:
    """Return what a link stands for, once: of many who use it at the same time one does; raises `LinkSpent`."""
    link = find(connection, purpose, secret, now)
    _lock_person(connection, link.user_id)
    if not connection.execute(update(mail_links).where(_usable(purpose, secret, now)).values(used_at=now)).rowcount:
        raise LinkSpent
    return link


def withdraw(connection: Connection, purpose: Purpose, user_id: str, now: int, *, but: str | None = None) -> None:
    """Stop a person's links from working, except those to the address whose key is `but`."""
    mine = (mail_links.c.user_id == user_id) & (mail_links.c.purpose == purpose) & mail_links.c.used_at.is_(None)
    if but is not None:
        mine &= mail_links.c.email_key != but
    connection.execute(update(mail_links).where(mine).values(used_at=now))


def waiting_address(connection: Connection, user_id: str, now: int) -> str | None:
    """The address that a person has yet to confirm."""
    mine = (mail_links.c.user_id == user_id) & (mail_links.c.purpose == "verify")
    usable = mine & mail_links.c.used_at.is_(None) & (mail_links.c.expires_at > now)
    found: str | None = connection.scalar(select(mail_links.c.email).where(usable).limit(1))
    return found


def issued_lately(connection: Connection, purpose: Purpose, link: MailLink, now: int) -> int:
    """How many links an address was sent, or a person had sent, within the last hour: nobody is to be flooded."""
    concerned = or_(mail_links.c.email_key == link.email_key, mail_links.c.user_id == link.user_id)
    recent = concerned & (mail_links.c.created_at > now - HOUR)
    count = select(func.count()).select_from(mail_links).where(recent & (mail_links.c.purpose == purpose))
    return connection.scalar(count) or 0


def _lock_person(connection: Connection, user_id: str) -> None:
    """First the person, then their links: whoever changes a password does the same."""
    connection.execute(select(users.c.id).where(users.c.id == user_id).with_for_update())


def _usable(purpose: Purpose, secret: str, now: int) -> Any:
    named = (mail_links.c.digest == digest(secret)) & (mail_links.c.purpose == purpose)
    return named & mail_links.c.used_at.is_(None) & (mail_links.c.expires_at > now)


def _link(row: Row[Any]) -> MailLink:
    return MailLink(row.user_id, row.email, row.email_key)
