"""What must work while the service is down: a lost administrator's password, a fresh secret for this machine."""

import secrets

from auth_svc import audit_chain, first_start
from auth_svc.audit import Actor
from auth_svc.composition import SCHEMAS
from auth_svc.factors import held
from auth_svc.people import account_changes, accounts
from auth_svc.people.password_policy import PasswordPolicy
from auth_svc.people.passwords import Passwords
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.nonces import Nonces
from auth_svc.protocol.signing_keys import SigningKeys
from auth_svc.rights.resources import Resources
from auth_svc.settings import SERVICE, AuthSettings
from lib_auth.audit_chain import Head
from lib_events.clock import SystemClock
from lib_events.database import Connection, open_database

OFFLINE = "offline command"


async def reset(settings: AuthSettings, username: str, password: str | None) -> str:
    """Set the password and return what to tell; raises `LookupError` for an unknown user, or `PasswordRejected`."""
    passwords = Passwords(threads=1, policy=PasswordPolicy(settings.breached_passwords))
    chosen = password or secrets.token_urlsafe(12)
    kept = passwords.hash_now(chosen)
    passwords.close()
    database = await open_database(settings.database_url_of(SERVICE), service=SERVICE, schemas=SCHEMAS)
    try:
        await database.transact(_reset, username, kept, Actor(SystemClock().micros(), OFFLINE))
    finally:
        await database.close()
    first_start.forget_initial_password(settings, username)
    return f"The password of {username} is set." if password else f"The new password of {username} is {chosen}"


async def drop_factors(settings: AuthSettings, username: str) -> None:
    """Take a user's second factors and passkeys away; raises `LookupError` for an unknown user."""
    database = await open_database(settings.database_url_of(SERVICE), service=SERVICE, schemas=SCHEMAS)
    try:
        await database.transact(_drop_factors, username, Actor(SystemClock().micros(), OFFLINE))
    finally:
        await database.close()


async def issue(settings: AuthSettings) -> str:
    """Write a new secret of `evs-local` and return the file's path."""
    settings.prepare_data()
    url, now = settings.check_issuer(), SystemClock().micros()
    database = await open_database(settings.database_url_of(SERVICE), service=SERVICE, schemas=SCHEMAS)
    try:
        issuer = Issuer(url, SigningKeys(), Resources(url, settings.app_url), Nonces(""))
        wanted = first_start.local_client(settings, issuer, now)
        await database.transact(first_start.put_clients, wanted)
    finally:
        await database.close()
    return str(first_start.secret_file(settings, first_start.LOCAL_CLIENT))


async def verify_audit(settings: AuthSettings, known: Head | None) -> str:
    """Follow the audit's chain and say what was found; raises `ChainBroken`."""
    database = await open_database(settings.database_url_of(SERVICE), service=SERVICE, schemas=SCHEMAS)
    try:
        verifier = await database.read(audit_chain.verify, known)
        waiting = (await database.read(audit_chain.state)).waiting
    finally:
        await database.close()
    return verifier.verdict() + (f" ({waiting} lines wait for the service to chain them)" if waiting else "")


def _drop_factors(connection: Connection, username: str, actor: Actor) -> None:
    account = accounts.find_by_username(connection, username)
    if account is None:
        raise LookupError(f"there is no user {username!r}")
    held.remove_all(connection, account.id, actor)


def _reset(connection: Connection, username: str, password_hash: str, actor: Actor) -> None:
    account = accounts.find_by_username(connection, username)
    if account is None:
        raise LookupError(f"there is no user {username!r}")
    account_changes.reset_password(connection, account.id, password_hash, actor)
