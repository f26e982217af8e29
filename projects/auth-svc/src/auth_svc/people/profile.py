"""What people say of themselves: how they are called, and which e-mail address is theirs."""

from dataclasses import replace

from sqlalchemy import update

from auth_svc.audit import Actor, record
from auth_svc.mail import texts
from auth_svc.people import accounts, mail_links
from auth_svc.people.accounts import Account
from auth_svc.people.addresses import email_key
from auth_svc.tables import users
from lib_auth.events import UserEmailChanged, UserEmailVerified, UserProfileChanged, UserProfileChangedData
from lib_events.database import Connection
from lib_events.event import Event


def set_name(connection: Connection, user_id: str, name: str | None, actor: Actor) -> Account:
    """Set how others call a person; raises `AccountRejected`."""
    account, wanted = accounts.existing(connection, user_id), (name or "").strip() or None
    accounts.check(None, wanted, account.roles)
    if wanted == account.name:
        return account
    connection.execute(update(users).where(accounts.has_id(user_id)).values(name=wanted, changed_at=actor.at))
    payload = UserProfileChangedData(
        user=user_id, username=account.username, email=account.email, by=actor.who, changed=["name"]
    )
    connection.publish(Event.of(UserProfileChanged, payload, source=connection.source, subject=user_id))
    record(connection, actor, "user.profile-changed", about=user_id, changed=["name"])
    return replace(account, name=wanted, changed_at=actor.at)


def set_verified_email(connection: Connection, account: Account, email: str, actor: Actor) -> Account:
    """Take an address that was proven to be a locked account's; the address it had is told."""
    values = {"email": email, "email_key": email_key(email), "email_verified_at": actor.at, "changed_at": actor.at}
    connection.execute(update(users).where(accounts.has_id(account.id)).values(values))
    changed = replace(account, email=email, email_verified=True, changed_at=actor.at)
    accounts.tell(connection, UserEmailVerified, changed, actor, "user.email-verified")
    if account.email is not None and email_key(account.email) != email_key(email):
        mail_links.withdraw(connection, "recover", account.id, actor.at)
        accounts.tell(connection, UserEmailChanged, changed, actor, "user.email-changed")
        accounts.write_to(connection, account, texts.address_changed(account.username, masked(email)), actor.at)
    return changed


def masked(email: str) -> str:
    """An address that its owner recognises and a stranger cannot use."""
    local, _, domain = email.partition("@")
    return f"{local[0]}***@{domain}"
