"""Proving an e-mail address: the link is used once, and the address is the person's from then on."""

from sqlalchemy.exc import IntegrityError

from auth_svc.audit import Actor
from auth_svc.people import accounts, addresses, mail_links, profile
from auth_svc.people.accounts import Account
from auth_svc.people.mail_links import LinkSpent, MailLink
from lib_events.database import Connection


def account_behind(connection: Connection, secret: str, now: int) -> tuple[MailLink, Account]:
    """Return what a link would prove, and of whom; raises `LinkSpent`."""
    link = mail_links.find(connection, "verify", secret, now)
    account = accounts.find(connection, link.user_id)
    if account is None or not account.enabled:
        raise LinkSpent
    return link, account


def verify(connection: Connection, secret: str, actor: Actor) -> Account:
    """Take a link's address for its person's; raises `LinkSpent`."""
    link = mail_links.use(connection, "verify", secret, actor.at)
    account = accounts.lock(connection, link.user_id)
    owner = addresses.owner_of(connection, link.email)
    if account is None or not account.enabled or (owner is not None and owner.id != account.id):
        raise LinkSpent
    own = Actor(actor.at, account.id, actor.address)
    try:
        return profile.set_verified_email(connection, account, link.email, own)
    except IntegrityError as error:  # another account proved the same address at the same time, and was first
        raise LinkSpent from error
