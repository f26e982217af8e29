"""Import of one person: their account, what they hold, and what they prove themselves with.

What somebody chose here is never replaced by what they had elsewhere: once they have signed in with an imported
password, their hash is one of ours, and a later import of the same export leaves alone what they prove themselves with
and what they are called. Nor does it let in again whoever was disabled here.
"""

from collections.abc import Sequence

from auth_svc.factors import held
from auth_svc.people import account_changes, accounts, password_hashes
from auth_svc.people.accounts import Account, AccountRejected, NewAccount
from auth_svc.people.password_hashes import HashRejected
from auth_svc.people.passwords import is_todays
from auth_svc.rights import groups, roles
from auth_svc.rights.changes import ChangeConflicts
from auth_svc.rights.groups import Group
from auth_svc.transfer.administering import makes_administrator
from auth_svc.transfer.document import UserItem
from auth_svc.transfer.exporting_people import user_item
from auth_svc.transfer.importing_factors import take_factors, take_links
from auth_svc.transfer.intake import Decided, Intake
from lib_auth.principal import MEMBER


def take_user(into: Intake, item: UserItem) -> Decided:
    """Bring one person in, or up to date; raises what makes an item refused."""
    connection, notes = into.connection, [item.note] if item.note else []
    account = accounts.find_by_username(connection, item.username)
    roles.check_known(connection, set(item.roles) - (account.roles if account is not None else set()))
    joined = [groups.find(connection, name) for name in item.groups]
    if into.is_foreign:
        _check_foreign(into, item, account, joined)
    kept = _hash(item, notes)
    if account is None:
        _arrive(into, item, kept, joined, notes=notes)
        return "created", _told(notes)
    changed = _bring_up_to_date(into, account, item, kept, joined, notes=notes)
    return ("changed" if changed else "unchanged"), _told(notes)


def _arrive(into: Intake, item: UserItem, kept: str | None, joined: Sequence[Group], *, notes: list[str]) -> None:
    """Make the account of somebody who is new here."""
    account = _new_account(into, item, kept)
    _join(into, account, joined)
    take_factors(into, account, item, notes)
    take_links(into, account, item, notes)
    if kept is None:
        notes.append(f"they must be given a new password: evs admin user reset-password {item.username}")
    if not item.enabled:
        accounts.disable(into.connection, account.id, into.actor)


def _bring_up_to_date(
    into: Intake, account: Account, item: UserItem, kept: str | None, joined: Sequence[Group], *, notes: list[str]
) -> bool:
    """Bring somebody who is here up to date; returns whether anything changed."""
    if account.id == into.actor.who and not item.enabled:
        raise ChangeConflicts("own-account", "the document disables yourself; let another administrator import it")
    before = user_item(account, secrets=True)
    was_here = account.password_hash is not None and is_todays(account.password_hash)
    is_older = kept is not None and was_here and (into.is_foreign or not is_todays(kept))
    if not (into.is_foreign and was_here):  # they may have another name and address by now
        changes = {"email": item.email, "name": item.name}
        account_changes.edit(into.connection, account.id, changes, into.actor)
    _change_account(into, account, item, None if is_older else kept)
    if into.is_foreign and item.enabled and not account.enabled:
        notes.append(f"stays disabled, as they are here: evs admin user enable {item.username}")
    _join(into, account, joined)
    added = take_links(into, account, item, notes)
    if not (into.is_foreign and was_here) and held.of_user(into.connection, account.id) == held.NOTHING:
        added |= take_factors(into, account, item, notes)
    return added or before != user_item(accounts.existing(into.connection, account.id), secrets=True)


def _check_foreign(into: Intake, item: UserItem, account: Account | None, joined: Sequence[Group]) -> None:
    """Refuse whoever is somebody else here, and whoever would become an administrator; raises `AccountRejected`."""
    held = account.granted_roles if account is not None else frozenset[str]()
    administers = makes_administrator(into.connection, held)
    if account is not None and account.id != item.id and (item.id is not None or administers):
        raise AccountRejected("username", "somebody else has that name here; rename one of them")
    wanted = frozenset(item.roles).union(*(group.roles for group in joined))
    if not administers and makes_administrator(into.connection, wanted):
        raise AccountRejected("roles", "an import makes nobody an administrator; rename the role or the group")


def _hash(item: UserItem, notes: list[str]) -> str | None:
    """Return the hash to keep; one that cannot be checked, or would cost too much, stays behind."""
    if item.password_hash is None:
        return None
    try:
        return password_hashes.accept(item.password_hash)
    except HashRejected as error:
        notes.append(str(error))
        return None


def _new_account(into: Intake, item: UserItem, kept: str | None) -> Account:
    """Make the account, under the id it had, so that what other services keep about it stays true."""
    held = frozenset(item.roles) | {MEMBER}
    new = NewAccount(item.username, kept, item.email, held, item.name, email_verified=item.email_verified)
    free = item.id is not None and accounts.is_free(into.connection, item.id)
    return accounts.register(into.connection, new, into.actor, item.id if free else None)


def _change_account(into: Intake, account: Account, item: UserItem, kept: str | None) -> None:
    connection, actor = into.connection, into.actor
    if into.is_told(item, "roles"):
        accounts.set_roles(connection, account.id, into.roles(item.roles, account.roles), actor)
    if kept is not None and kept != account.password_hash:
        accounts.set_password(connection, account.id, kept, actor)
    if account.enabled and not item.enabled:
        accounts.disable(connection, account.id, actor)
    if item.enabled and not account.enabled and not into.is_foreign:  # who was disabled here stays so
        accounts.enable(connection, account.id, actor)


def _join(into: Intake, account: Account, wanted: Sequence[Group]) -> None:
    names = {group.name for group in wanted}
    for group in wanted:
        if group.name not in account.groups:
            groups.add_member(into.connection, group.id, account.id, into.actor)
    for name in sorted(account.groups - names):
        groups.remove_member(into.connection, groups.find(into.connection, name).id, account.id, into.actor)


def _told(notes: Sequence[str]) -> str | None:
    return "; ".join(notes) or None
