"""Upstreams: other OpenID providers whose people may sign in here, and which of our accounts are theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, delete, insert, select

from auth_svc import audit, listed
from auth_svc.audit import Actor
from auth_svc.factors import held
from auth_svc.people import accounts
from auth_svc.people.accounts import Account, AccountRejected, NewAccount
from auth_svc.tables import upstream_links, upstream_sign_ins, upstreams
from lib_events.database import Connection

UPSTREAM = "upstream"  # the name of this way to sign in, in events
MAX_NAMESAKES = 20


class UpstreamRejected(Exception):
    """An upstream cannot be made like that; `field` is at fault."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class ArrivalRefused(Exception):
    """Somebody proved at an upstream who they are, and may not come in; the text is for them."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One other provider."""

    id: str
    name: str
    issuer: str
    client_id: str
    sealed: bytes = field(repr=False)
    scopes: str
    makes_accounts: bool
    domains: tuple[str, ...]
    created_at: int

    def with_secret(self, sealed: bytes) -> "Upstream":
        """The same with its secret."""
        return replace(self, sealed=sealed)

    @property
    def purpose(self) -> str:
        """What its secret is sealed for."""
        return f"client secret at {self.issuer}"


@dataclass(frozen=True, slots=True)
class Arrival:
    """Whom an upstream sends: its issuer and subject name them; an address is there only when it was verified."""

    issuer: str
    subject: str
    username: str
    email: str | None


def register(connection: Connection, upstream: Upstream, actor: Actor) -> Upstream:
    """Let another provider's people sign in; raises `UpstreamRejected`."""
    for field_name, column in (("id", upstreams.c.id), ("issuer", upstreams.c.issuer)):
        if connection.scalar(select(upstreams.c.id).where(column == getattr(upstream, field_name))) is not None:
            raise UpstreamRejected(field_name, "There is one already; remove it first.")
    values = {name: getattr(upstream, name) for name in upstream.__slots__}
    connection.execute(insert(upstreams).values(values | {"domains": listed.to_text(upstream.domains)}))
    audit.record(connection, actor, "upstream.registered", about=upstream.id, issuer=upstream.issuer)
    return upstream


def remove(connection: Connection, upstream_id: str, actor: Actor) -> bool:
    """Let nobody sign in by way of it any more; links stay, for the day it comes back."""
    connection.execute(delete(upstream_sign_ins).where(upstream_sign_ins.c.upstream_id == upstream_id))
    removed = connection.execute(delete(upstreams).where(upstreams.c.id == upstream_id)).rowcount
    if removed:
        audit.record(connection, actor, "upstream.removed", about=upstream_id)
    return bool(removed)


def find(connection: Connection, upstream_id: str) -> Upstream | None:
    """Return the upstream with that id."""
    row = connection.execute(select(upstreams).where(upstreams.c.id == upstream_id)).one_or_none()
    return None if row is None else _upstream(row)


def every(connection: Connection) -> Sequence[Upstream]:
    """Return all of them by name; there are few."""
    return [_upstream(row) for row in connection.execute(select(upstreams).order_by(upstreams.c.name))]


def linked_to(connection: Connection, user_id: str) -> frozenset[str]:
    """Return the issuers that a person may sign in with."""
    query = select(upstream_links.c.issuer).where(upstream_links.c.user_id == user_id)
    return frozenset(row.issuer for row in connection.execute(query))


def receive(connection: Connection, upstream: Upstream, arrival: Arrival, actor: Actor) -> Account:
    """Return whose account it is, made now where that is allowed; raises `ArrivalRefused`."""
    _lock(connection, upstream)
    _check_domain(upstream, arrival)
    account = _linked_account(connection, arrival)
    if account is not None:
        if not account.enabled:
            raise ArrivalRefused("The account is disabled. Ask an administrator.")
        return account
    if not upstream.makes_accounts:
        # Never by e-mail alone: who has an address there need not be who has it here.
        raise ArrivalRefused(
            f"No account here belongs to that sign-in. Sign in with your password, then connect {upstream.name} "
            "under Account, Security."
        )
    account = _make_account(connection, arrival, actor)
    _link(connection, account, upstream, arrival, actor)
    return account


def link(connection: Connection, account: Account, actor: Actor, *, upstream: Upstream, arrival: Arrival) -> None:
    """Let somebody sign in to their account by way of an upstream; raises `ArrivalRefused`."""
    _lock(connection, upstream)
    _check_domain(upstream, arrival)
    before = _linked_account(connection, arrival)
    if before is not None and before.id != account.id:
        raise ArrivalRefused("That sign-in belongs to another account here already.")
    if before is None:
        _link(connection, account, upstream, arrival, actor)


def unlink(connection: Connection, account: Account, actor: Actor, *, issuer: str) -> bool:
    """Take a link away; False when it is the only way in that is left."""
    others = linked_to(connection, account.id) - {issuer}
    has_another = others or held.of_user(connection, account.id).passkeys
    if account.password_hash is None and not has_another:
        return False
    own = (upstream_links.c.user_id == account.id) & (upstream_links.c.issuer == issuer)
    if connection.execute(delete(upstream_links).where(own)).rowcount:
        held.tell_removed(connection, account, UPSTREAM, actor)
    return True


def _lock(connection: Connection, upstream: Upstream) -> None:
    """Let one arrive after the other: somebody who comes twice at once must not become two."""
    same = select(upstreams.c.id).where(upstreams.c.id == upstream.id)
    if connection.scalar(same.with_for_update()) is None:
        raise ArrivalRefused(f"Nobody can sign in with {upstream.name} any more.")


def _check_domain(upstream: Upstream, arrival: Arrival) -> None:
    domain = (arrival.email or "").rpartition("@")[2].lower()
    if upstream.domains and domain not in upstream.domains:
        raise ArrivalRefused(f"{upstream.name} did not vouch for an e-mail address that may sign in here.")


def _linked_account(connection: Connection, arrival: Arrival) -> Account | None:
    links = upstream_links.c
    same = (links.issuer == arrival.issuer) & (links.subject == arrival.subject)
    user_id = connection.scalar(select(links.user_id).where(same))
    return accounts.find(connection, user_id) if user_id is not None else None  # whoever starts the session locks it


def _link(connection: Connection, account: Account, upstream: Upstream, arrival: Arrival, actor: Actor) -> None:
    values = {"issuer": arrival.issuer, "subject": arrival.subject, "user_id": account.id, "linked_at": actor.at}
    connection.execute(insert(upstream_links).values(values))
    held.tell_added(connection, account, UPSTREAM, actor)
    audit.record(connection, actor, "user.upstream-linked", about=account.id, upstream=upstream.id)


def _make_account(connection: Connection, arrival: Arrival, actor: Actor) -> Account:
    """Make an account without a password; where the name is taken, with a number."""
    for number in range(1, MAX_NAMESAKES):
        name = arrival.username if number == 1 else f"{arrival.username[:60]}{number}"
        if accounts.find_by_username(connection, name) is None:
            try:
                return accounts.register(connection, NewAccount(name, None, arrival.email), actor)
            except AccountRejected as error:
                raise ArrivalRefused(f"An account cannot be made for you. {error.detail}") from error
    raise ArrivalRefused("An account cannot be made for you: too many have that name. Ask an administrator.")


def _upstream(row: Row[Any]) -> Upstream:
    values = dict(row._mapping)
    return Upstream(**values | {"domains": listed.from_text(row.domains)})
