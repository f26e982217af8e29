"""Making oneself an account: openly, or with an invitation that is used up by it."""

from dataclasses import dataclass, field, replace

from auth_svc.audit import Actor
from auth_svc.people import accounts, addresses, invitations
from auth_svc.people.accounts import Account, NewAccount
from auth_svc.people.invitations import Invitation
from lib_events.database import Connection


@dataclass(frozen=True, slots=True)
class Registration:
    """What a person filled in, and the invitation they hold."""

    new: NewAccount
    invitation: str | None = field(default=None, repr=False)


def register(connection: Connection, wanted: Registration, actor: Actor) -> Account:
    """Make the account; raises `AccountRejected` and `InvitationSpent`."""
    if wanted.invitation is None:
        return accounts.register(connection, wanted.new, actor)
    invitation = invitations.find(connection, wanted.invitation, actor.at)
    account = accounts.register(connection, _invited(wanted.new, invitation), actor)
    invitations.use(connection, wanted.invitation, account.id, actor.at)
    return account


def _invited(new: NewAccount, invitation: Invitation) -> NewAccount:
    """With the roles of the invitation; who followed a link out of a mail has proven its address."""
    wanted, invited = new.email or "", invitation.email or ""
    proven = bool(invited) and addresses.email_key(wanted) == addresses.email_key(invited)
    if proven:
        # As it was invited: what folds to the same (ß to ss) may still be a mailbox of somebody else.
        new = replace(new, email=invitation.email, email_verified=True)
    return replace(new, roles=new.roles | invitation.roles)
