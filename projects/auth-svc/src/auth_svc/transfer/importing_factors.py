"""Import of what one person proves themselves with beside a password, and of who they are elsewhere.

Whoever has a factor here keeps what they have: an older document must not bring back a passkey that was taken away.
"""

import base64

from auth_svc.factors import authenticator_apps, passkeys, recovery_codes
from auth_svc.factors.passkeys import NewPasskey, PasskeyRejected, RelyingParty
from auth_svc.people.accounts import Account
from auth_svc.transfer.document import PasskeyItem, UserItem
from auth_svc.transfer.intake import Intake
from auth_svc.upstreams import providers
from auth_svc.upstreams.providers import ArrivalRefused


def take_factors(into: Intake, account: Account, item: UserItem, notes: list[str]) -> bool:
    """Add the app, the passkeys and the recovery codes; returns whether anything was new."""
    connection, actor, added = into.connection, into.actor, False
    if item.authenticator_secret is not None:
        secret, key = item.authenticator_secret, into.sealing_key
        added = authenticator_apps.adopt(connection, account, secret, actor, key=key)
    added |= _take_passkeys(into, account, item, notes)
    digests = map(bytes.fromhex, item.recovery_codes or ())
    return recovery_codes.adopt(connection, account, digests, actor) or added


def take_links(into: Intake, account: Account, item: UserItem, notes: list[str]) -> bool:
    """Add who the person is at other providers; returns whether anything was new."""
    added = False
    for link in item.links or ():
        try:
            added |= providers.adopt(into.connection, account, into.actor, issuer=link.issuer, subject=link.subject)
        except ArrivalRefused as error:
            notes.append(str(error))
    return added


def _take_passkeys(into: Intake, account: Account, item: UserItem, notes: list[str]) -> bool:
    """Add those that a browser would offer here: they are made for a host and a person's id."""
    party, added = RelyingParty.of(into.issuer), False
    for passkey in item.passkeys or ():
        name = passkey.name or "a passkey"
        if party is None or passkey.host != party.host:
            notes.append(f"{name} stays behind: it is for {passkey.host}, and they must add another one here")
            continue
        if account.id != item.id:
            notes.append(f"{name} stays behind: it is for their id {item.id} of before")
            continue
        try:
            passkeys.adopt(into.connection, account, _new_passkey(passkey), into.actor)
            added = True
        except (PasskeyRejected, ValueError) as error:  # or it is no base64url
            notes.append(f"{name} stays behind: {error}")
    return added


def _new_passkey(item: PasskeyItem) -> NewPasskey:
    return NewPasskey(
        credential_id=_bytes(item.credential_id),
        public_key=_bytes(item.public_key),
        sign_count=item.sign_count,
        name=item.name,
        synced=item.synced,
    )


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
