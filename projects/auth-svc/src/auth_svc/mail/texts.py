"""What every mail says: plain text, who it is for, what happened, what to do."""

from dataclasses import dataclass, field

BRAND = "event-based-svcs"
ISSUER = "{issuer}"  # where links begin: whoever sends the mail knows


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail before it has an address; the body may hold a secret link."""

    kind: str
    subject: str
    body: str = field(repr=False)


def verify_address(name: str, secret: str) -> Letter:
    """Ask whoever reads the mails of an address whether it is theirs."""
    text = f"""Please confirm that this address belongs to your account {name}:

{ISSUER}/verify-email?link={secret}

The link works once, for 24 hours. If that is not your account, do nothing: without the
confirmation the address is not used."""
    return _letter("verify", "Confirm your e-mail address", name, text)


def address_in_use(name: str) -> Letter:
    """Tell the owner of an address that somebody else, or they themselves, wanted it again."""
    text = f"""Somebody wanted to use this e-mail address for another account. It belongs to your account
already, so nothing was changed.

If it was you, sign in: {ISSUER}/login
If you forgot the password: {ISSUER}/recover
If it was not you, there is nothing to do."""
    return _letter("address-in-use", "Your e-mail address is in use already", name, text)


def address_changed(name: str, masked: str | None) -> Letter:
    """Tell the old address that there is a new one, or none."""
    news = f"is now {masked}" if masked else "was taken away"
    text = f"""The e-mail address of your account {news}. This address is no longer used.

If it was not you, tell an administrator at once."""
    return _letter("email-changed", "Your e-mail address was changed", name, text)


def recover_password(name: str, secret: str) -> Letter:
    """Let whoever reads the account's mails choose a new password."""
    text = f"""Somebody, probably you, asked for a new password for your account {name}. Choose it here:

{ISSUER}/recover/new-password?link={secret}

The link works once, for one hour. If it was not you, do nothing: your password stays as it is."""
    return _letter("recover", "Choose a new password", name, text)


def password_changed(name: str) -> Letter:
    """Tell a person that their password is another one now."""
    text = f"""The password of your account was changed, and every other sign-in has ended.

If it was not you, choose a new one at once: {ISSUER}/recover
and tell an administrator."""
    return _letter("password-changed", "Your password was changed", name, text)


def recovery_code_used(name: str, left: int) -> Letter:
    """Tell a person that one of their recovery codes was used."""
    text = f"""Somebody signed in to your account with one of your recovery codes; {left} are left.

If it was not you, change your password at once and renew your codes: {ISSUER}/account/security
and tell an administrator."""
    return _letter("recovery-code-used", "A recovery code was used", name, text)


def wrong_codes(name: str, count: int, most: int) -> Letter:
    """Tell a person that somebody guesses at their second step."""
    text = f"""Somebody who knows your password has sent {count} wrong codes of your authenticator app in a row.

If it was not you, choose a new password: {ISSUER}/recover
After {most} wrong codes no code of the app is taken until you have signed in with a passkey or a
recovery code. If you have neither, ask an administrator."""
    return _letter("wrong-codes", "Somebody is guessing your codes", name, text)


def wrong_passwords(name: str, most: int) -> Letter:
    """Tell a person that somebody guesses at their password."""
    text = f"""{most} wrong passwords in a row were tried for your account. From now on your password is taken only in
browsers that you have signed in with before, until you have signed in with one of them.

To sign in with another one, use a passkey, or choose a new password there: {ISSUER}/recover
Nobody has got in by this."""
    return _letter("wrong-passwords", "Somebody is guessing your password", name, text)


def factor_added(name: str, what: str) -> Letter:
    """Tell a person that there is one more way to prove who they are."""
    text = f"""Your account now has {what}, with which you can sign in or confirm a sign-in.

If it was not you, change your password at once, remove what is not yours: {ISSUER}/account/security
and tell an administrator."""
    return _letter("factor-added", "How you sign in was changed", name, text)


def factor_removed(name: str, what: str) -> Letter:
    """Tell a person that a way to prove who they are is gone."""
    text = f"""This can no longer be used to sign in to your account: {what}.

If it was not you, and no administrator did it for you, change your password at once: {ISSUER}/account
and tell an administrator."""
    return _letter("factor-removed", "How you sign in was changed", name, text)


def new_device(name: str, device: str, address: str) -> Letter:
    """Tell a person that somebody signed in from a device that was not used before."""
    text = f"""Somebody signed in to your account with {device}, from the address {address}.

If it was you, there is nothing to do. If it was not, sign that device out and change your password:
{ISSUER}/account/sessions"""
    return _letter("new-device", "A new device signed in", name, text)


def upstream_connected(name: str, upstream: str) -> Letter:
    """Tell a person that an account elsewhere opens theirs from now on."""
    text = f"""Your account can now be signed in to with {upstream}.

If it was not you, disconnect it at once: {ISSUER}/account/security
then change your password and tell an administrator."""
    return _letter("upstream-connected", f"{upstream} was connected with your account", name, text)


def invitation(secret: str, days: int) -> Letter:
    """Invite somebody who has no account yet."""
    text = f"""You are invited to {BRAND}. Make yourself an account here:

{ISSUER}/register?invitation={secret}

The link works once, for {days} {"day" if days == 1 else "days"}."""
    return _letter("invitation", f"You are invited to {BRAND}", None, text)


def _letter(kind: str, subject: str, name: str | None, text: str) -> Letter:
    greeting = f"Hello {name}," if name else "Hello,"
    return Letter(kind, subject, f"{greeting}\n\n{text}\n\n-- \n{BRAND}\n")
