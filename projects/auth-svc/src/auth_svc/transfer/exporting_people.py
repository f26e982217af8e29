"""Export of people: their accounts, who they are elsewhere, and what they prove themselves with."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, select, true

from auth_svc.factors import authenticator_apps
from auth_svc.factors.passkeys import RelyingParty
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.people.user_names import folded
from auth_svc.tables import authenticator_apps as app_rows
from auth_svc.tables import passkeys, recovery_codes, upstream_links, users
from auth_svc.transfer.document import LinkItem, PasskeyItem, UserItem
from lib_events.database import Connection
from lib_events.sealed import SealingKey

AT_ONCE = 500  # people of whom one query asks

type OfPeople[T] = Mapping[str, Sequence[T]]  # by their ids


def people(connection: Connection, issuer: str, unsealing: SealingKey | None) -> Iterable[UserItem]:
    """Yield everybody by name; with the key also what they prove themselves with."""
    after: str | None = None
    while page := _page(connection, after):
        beside: dict[str, OfPeople[Any]] = {"links": _links(connection, page)}
        if unsealing is not None:
            beside["passkeys"] = _passkeys(connection, page, issuer)
            beside["recovery_codes"] = _recovery_codes(connection, page)
        secrets = _app_secrets(connection, page, unsealing) if unsealing is not None else {}
        for account in page:
            more: dict[str, Any] = {name: found.get(account.id) for name, found in beside.items()}
            more["authenticator_secret"] = next(iter(secrets.get(account.id, ())), None)
            yield user_item(account, secrets=unsealing is not None).model_copy(update=more)
        after = folded(page[-1].username)


def user_item(account: Account, *, secrets: bool) -> UserItem:
    """Describe a person's account."""
    return UserItem(
        id=account.id,
        username=account.username,
        name=account.name,
        email=account.email,
        email_verified=account.email_verified,
        roles=sorted(account.roles),
        groups=sorted(account.groups),
        enabled=account.enabled,
        password_hash=account.password_hash if secrets else None,
    )


def _page(connection: Connection, after: str | None) -> Sequence[Account]:
    query = select(users).where(users.c.deleted_at.is_(None)).order_by(users.c.username_key).limit(AT_ONCE)
    return accounts.read_accounts(connection, query if after is None else query.where(users.c.username_key > after))


def _links(connection: Connection, page: Sequence[Account]) -> OfPeople[LinkItem]:
    return _of(connection, page, upstream_links, lambda row: LinkItem(issuer=row.issuer, subject=row.subject))


def _app_secrets(connection: Connection, page: Sequence[Account], unsealing: SealingKey) -> OfPeople[str]:
    confirmed = app_rows.c.confirmed_at.is_not(None)
    return _of(connection, page, app_rows, lambda row: authenticator_apps.unsealed(row, unsealing), so=confirmed)


def _recovery_codes(connection: Connection, page: Sequence[Account]) -> OfPeople[str]:
    return _of(connection, page, recovery_codes, lambda row: row.digest.hex(), so=recovery_codes.c.used_at.is_(None))


def _passkeys(connection: Connection, page: Sequence[Account], issuer: str) -> OfPeople[PasskeyItem]:
    party = RelyingParty.of(issuer)
    if party is None:  # browsers offer none of them to an address
        return {}
    host = party.host
    return _of(connection, page, passkeys, lambda row: _passkey_item(row, host), by=passkeys.c.credential_id)


def _passkey_item(row: Row[Any], host: str) -> PasskeyItem:
    return PasskeyItem(
        host=host,
        credential_id=_base64url(row.credential_id),
        public_key=_base64url(row.public_key),
        sign_count=row.sign_count,
        name=row.name,
        synced=row.synced,
    )


def _of[T](
    connection: Connection,
    page: Sequence[Account],
    table: Table,
    described: Callable[[Row[Any]], T],
    *,
    so: ColumnElement[bool] | None = None,
    by: ColumnElement[bytes] | None = None,
) -> OfPeople[T]:
    """Return what each of a page's people has in a table, in an order that is the same everywhere."""
    theirs = table.c.user_id.in_([account.id for account in page]) & (true() if so is None else so)
    found: dict[str, list[T]] = {}
    order = table.primary_key.columns if by is None else (by,)
    for row in connection.execute(select(table).where(theirs).order_by(*order)):
        found.setdefault(row.user_id, []).append(described(row))
    return found


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
