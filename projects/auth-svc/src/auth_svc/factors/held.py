"""What an account has beside its password; adding and taking away is told by event and audit."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, ScalarSelect, Table, bindparam, delete, func, select

from auth_svc.audit import Actor, record
from auth_svc.mail import texts
from auth_svc.people import accounts
from auth_svc.people.accounts import Account, AccountUnknown
from auth_svc.proving import guesses, sign_ins
from auth_svc.proving.assurance import PHISHING_RESISTANT, TWO_FACTORS, reaches
from auth_svc.tables import authenticator_apps, passkeys, recovery_codes
from lib_auth.events import UserFactorAdded, UserFactorData, UserFactorRemoved, UserFactorStopped
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.prepared import Prepared

APP = "authenticator-app"
PASSKEY = "passkey"
RECOVERY_CODES = "recovery-codes"
UPSTREAM = "upstream"  # another provider: no factor, but a way in
CALLED = {
    APP: "an authenticator app",
    PASSKEY: "a passkey",
    RECOVERY_CODES: "recovery codes",
    UPSTREAM: "another provider",
}  # in mails
TABLES = {APP: authenticator_apps, PASSKEY: passkeys, RECOVERY_CODES: recovery_codes}


@dataclass(frozen=True, slots=True)
class Factors:
    """What a person can prove beside their password."""

    app: bool = False
    passkeys: int = 0
    recovery_codes: int = 0  # those that are left

    def can_reach(self, level: str) -> bool:
        """Whether who has all this can prove that much."""
        return self.passkeys > 0 if level == PHISHING_RESISTANT else self.any

    @property
    def any(self) -> bool:
        """Whether a sign-in takes a second step; recovery codes stand in for a factor and are none themselves."""
        return self.app or self.passkeys > 0


NOTHING = Factors()


def _count(table: Table, *so: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.count()).select_from(table).where(table.c.user_id == bindparam("user"), *so).scalar_subquery()


COUNTS = Prepared(
    select(
        _count(authenticator_apps, authenticator_apps.c.confirmed_at.is_not(None)).label("apps"),
        _count(passkeys).label("passkeys"),
        _count(recovery_codes, recovery_codes.c.used_at.is_(None)).label("codes"),
    )
)


def of_user(connection: Connection, user_id: str) -> Factors:
    """Return what a person has."""
    row = connection.row(COUNTS, user=user_id)
    return Factors(app=row.apps > 0, passkeys=row.passkeys, recovery_codes=row.codes)


def lacks_factor(connection: Connection, user_id: str, methods: Iterable[str]) -> bool:
    """Whether a person has a second factor that a session with these methods has not seen: it is from before that."""
    return not reaches(methods, TWO_FACTORS) and of_user(connection, user_id).any


def tell_added(connection: Connection, account: Account, factor: str, actor: Actor) -> None:
    """Tell that a person can prove something more from now on."""
    payload = UserFactorData(user=account.id, username=account.username, by=actor.who, factor=factor)
    connection.publish(Event.of(UserFactorAdded, payload, source=connection.source, subject=account.id))
    record(connection, actor, "user.factor-added", about=account.id, factor=factor)


def write_added(connection: Connection, account: Account, factor: str, actor: Actor, *, called: str = "") -> None:
    """Write to a person who, or in whose name somebody, has just added a factor (SP 800-63B-4, section 4.1.2)."""
    accounts.write_to(connection, account, texts.factor_added(account.username, called or CALLED[factor]), actor.at)


def tell_removed(connection: Connection, account: Account, factor: str, actor: Actor, *, called: str = "") -> None:
    """Tell that a factor is gone; once no other is left, its recovery codes stand in for nothing and go with it."""
    payload = UserFactorData(user=account.id, username=account.username, by=actor.who, factor=factor)
    connection.publish(Event.of(UserFactorRemoved, payload, source=connection.source, subject=account.id))
    record(connection, actor, "user.factor-removed", about=account.id, factor=factor)
    accounts.write_to(connection, account, texts.factor_removed(account.username, called or CALLED[factor]), actor.at)
    sign_ins.end_all_of_user(connection, account.id)
    guesses.forget(connection, account.id)
    if not of_user(connection, account.id).any:
        connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == account.id))


def tell_stopped(connection: Connection, account: Account, factor: str, actor: Actor) -> None:
    """Tell that a factor is not taken now: too many have guessed at it."""
    payload = UserFactorData(user=account.id, username=account.username, by=actor.who, factor=factor)
    connection.publish(Event.of(UserFactorStopped, payload, source=connection.source, subject=account.id))
    record(connection, actor, "user.factor-stopped", about=account.id, factor=factor)


def remove_all(connection: Connection, user_id: str, actor: Actor) -> None:
    """Take everything away, for somebody who has lost it; the password alone lets them in then."""
    account = accounts.lock(connection, user_id)
    if account is None:
        raise AccountUnknown(f"there is no user {user_id!r}; list them with: evs admin user list")
    for factor, table in TABLES.items():
        if connection.execute(delete(table).where(table.c.user_id == user_id)).rowcount:
            tell_removed(connection, account, factor, actor)
