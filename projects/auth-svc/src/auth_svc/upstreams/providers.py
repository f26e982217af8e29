"""Upstreams: other OpenID providers whose people may sign in here, and which of our accounts are theirs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, insert, select, update

from auth_svc import audit, listed
from auth_svc.audit import Actor
from auth_svc.factors import held
from auth_svc.factors.held import UPSTREAM
from auth_svc.loopback import is_loopback
from auth_svc.mail import texts
from auth_svc.people import accounts, user_names
from auth_svc.people.accounts import TAKEN, Account, AccountRejected, NewAccount
from auth_svc.proving.assurance import UNTOLD
from auth_svc.tables import upstream_links, upstreams
from lib_events.database import Connection
from lib_events.prepared import Prepared

MAX_NAMESAKES = 20
NAMELESS = "person"  # of whom nothing is told that could be a name
EVERY = Prepared(select(upstreams).order_by(upstreams.c.name))


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
    authenticated_at: int = UNTOLD


def check(issuer: str, scopes: str, *, is_loopback_here: bool) -> str:
    """Return the issuer as it is, a last slash included; raises `UpstreamRejected`.

    Secrets and people go there over TLS, or nowhere beyond loopback.
    """
    if "openid" not in scopes.split():
        raise UpstreamRejected("scopes", "One of the scopes must be openid.")
    try:
        parts = urlsplit(issuer)
        local = parts.scheme == "http" and is_loopback(parts.hostname) and is_loopback_here
    except ValueError as error:
        raise UpstreamRejected("issuer", "That is no URL.") from error
    if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise UpstreamRejected("issuer", "An issuer is https, a host, and maybe a path.")
    if parts.scheme != "https" and not local:
        raise UpstreamRejected("issuer", "An issuer must begin with https://.")
    return issuer


def register(connection: Connection, upstream: Upstream, actor: Actor) -> Upstream:
    """Let another provider's people sign in; raises `UpstreamRejected`."""
    for field_name, column in (("id", upstreams.c.id), ("issuer", upstreams.c.issuer)):
        if connection.scalar(select(upstreams.c.id).where(column == getattr(upstream, field_name))) is not None:
            raise UpstreamRejected(field_name, "There is one already; remove it first.")
    values = {name: getattr(upstream, name) for name in upstream.__slots__}
    connection.execute(insert(upstreams).values(values | {"domains": listed.to_text(upstream.domains)}))
    audit.record(connection, actor, "upstream.registered", about=upstream.id, issuer=upstream.issuer)
    return upstream


def change(connection: Connection, upstream: Upstream, actor: Actor) -> None:
    """Keep an upstream as it is to be from now on, under its id and issuer."""
    wanted = {name: getattr(upstream, name) for name in ("name", "client_id", "sealed", "scopes", "makes_accounts")}
    one = update(upstreams).where(upstreams.c.id == upstream.id)
    connection.execute(one.values(wanted | {"domains": listed.to_text(upstream.domains)}))
    audit.record(connection, actor, "upstream.changed", about=upstream.id)


def find(connection: Connection, upstream_id: str) -> Upstream | None:
    """Return the upstream with that id."""
    row = connection.execute(select(upstreams).where(upstreams.c.id == upstream_id)).one_or_none()
    return None if row is None else _upstream(row)


def every(connection: Connection) -> Sequence[Upstream]:
    """Return all of them by name; there are few."""
    return [_upstream(row) for row in connection.rows(EVERY)]


def linked_to(connection: Connection, user_id: str) -> frozenset[str]:
    """Return the issuers that a person may sign in with."""
    query = select(upstream_links.c.issuer).where(upstream_links.c.user_id == user_id)
    return frozenset(row.issuer for row in connection.execute(query))


def receive(
    connection: Connection, upstream: Upstream, arrival: Arrival, actor: Actor, *, may_be_new: bool
) -> Account | None:
    """Return whose account it is, made now where that is allowed; raises `ArrivalRefused`.

    None for somebody unknown who is not to be taken for somebody new: an account here has their address.
    """
    upstream = lock(connection, upstream)
    _check_domain(upstream, arrival)
    account = _linked_account(connection, arrival)
    if account is not None:
        if not account.enabled:
            raise ArrivalRefused("The account is disabled. Ask an administrator.")
        return account
    if not may_be_new:
        return None
    if not upstream.makes_accounts:
        raise ArrivalRefused(
            f"No account here belongs to that sign-in. Sign in with your password, then connect {upstream.name} "
            "under Account, Security."
        )
    account = _make_account(connection, arrival, actor)
    _link(connection, account, upstream, arrival, actor)
    return account


def make_another(connection: Connection, upstream: Upstream, arrival: Arrival, actor: Actor) -> Account:
    """Make an account without the address, which is another one's; raises `ArrivalRefused`."""
    upstream = lock(connection, upstream)
    _check_domain(upstream, arrival)
    if not upstream.makes_accounts or _linked_account(connection, arrival) is not None:
        raise ArrivalRefused("No account can be made for that sign-in. Begin again.")
    account = _make_account(connection, replace(arrival, email=None), actor)
    _link(connection, account, upstream, arrival, actor)
    return account


def link(connection: Connection, account: Account, actor: Actor, *, upstream: Upstream, arrival: Arrival) -> None:
    """Let somebody sign in to their account by way of an upstream; raises `ArrivalRefused`."""
    upstream = lock(connection, upstream)
    _check_domain(upstream, arrival)
    before = _linked_account(connection, arrival)
    if before is not None and before.id != account.id:
        raise ArrivalRefused("That sign-in belongs to another account here already.")
    if before is None:
        _link(connection, account, upstream, arrival, actor)
        accounts.write_to(connection, account, texts.upstream_connected(account.username, upstream.name), actor.at)


def adopt(connection: Connection, account: Account, actor: Actor, *, issuer: str, subject: str) -> bool:
    """Link an account to whom it was linked to elsewhere; False when it is already. Raises `ArrivalRefused`."""
    named = issuer.rstrip("/")
    upstream = next((known for known in every(connection) if known.issuer.rstrip("/") == named), None)
    if upstream is None:
        raise ArrivalRefused(f"nobody signs in with {issuer} here yet: evs admin upstream create, then import again")
    lock(connection, upstream)
    arrival = Arrival(upstream.issuer, subject, account.username, None)
    before = _linked_account(connection, arrival)
    if before is not None and before.id != account.id:
        raise ArrivalRefused(f"the sign-in with {upstream.name} belongs to {before.username} here")
    if before is None:
        _link(connection, account, upstream, arrival, actor)
    return before is None


def unlink(connection: Connection, account: Account, actor: Actor, *, issuer: str) -> bool:
    """Take a link away; False when it is the only way in that is left."""
    others = linked_to(connection, account.id) - {issuer}
    has_another = others or held.of_user(connection, account.id).passkeys
    if account.password_hash is None and not has_another:
        return False
    own = (upstream_links.c.user_id == account.id) & (upstream_links.c.issuer == issuer)
    if connection.execute(delete(upstream_links).where(own)).rowcount:
        held.tell_removed(connection, account, UPSTREAM, actor, called=f"the sign-in with {issuer}")
    return True


def lock(connection: Connection, upstream: Upstream) -> Upstream:
    """Return the upstream as it is now, and stays until this transaction ends; raises `ArrivalRefused`.

    Who is sent there is away for a while: by the time they arrive it may let others in, or be another's. And of those
    who arrive, one comes after the other: somebody who comes twice at once must not become two.
    """
    row = connection.execute(select(upstreams).where(upstreams.c.id == upstream.id).with_for_update()).one_or_none()
    if row is None or row.issuer != upstream.issuer:
        raise ArrivalRefused(f"Nobody can sign in with {upstream.name} any more.")
    return _upstream(row)


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
    """Make an account without a password; where the name is taken, with a number.

    What people are called elsewhere may be no user name here, as "Grace Hopper" is none; then it is nearly that.
    """
    called = (arrival.username, (arrival.email or "").partition("@")[0], NAMELESS)
    wanted = next(name for name in map(user_names.likened, called) if name is not None)
    for number in range(1, MAX_NAMESAKES):
        name = wanted if number == 1 else f"{wanted[:60]}{number}"
        try:
            return accounts.register(connection, NewAccount(name, None, arrival.email), actor)
        except AccountRejected as error:
            if error.detail != TAKEN:
                raise ArrivalRefused(f"An account cannot be made for you. {error.detail}") from error
    raise ArrivalRefused("An account cannot be made for you: too many have that name. Ask an administrator.")


def _upstream(row: Iterable[Any]) -> Upstream:
    values = dict(zip(upstreams.columns.keys(), row, strict=True))
    return Upstream(**values | {"domains": listed.from_text(values["domains"])})
