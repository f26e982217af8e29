"""Passkeys (WebAuthn Level 3): what people have, and what a browser sends for one, checked."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import webauthn
from sqlalchemy import Row, delete, insert, select, update
from webauthn.helpers import (
    decode_credential_public_key,
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
    structs,
)

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.factors import challenges, held
from auth_svc.opaque import new_id
from auth_svc.people.accounts import Account
from auth_svc.tables import passkeys
from lib_events.database import Connection
from lib_events.sealed import SealingKey

MAX_PASSKEYS = 20
MAX_CREDENTIAL = 16_384
MAX_NAME = 60
ADDING, SIGNING_IN, SECOND_STEP = "adding", "signing in", "second step"
REQUIRED = structs.UserVerificationRequirement.REQUIRED
PREFERRED = structs.UserVerificationRequirement.PREFERRED


class PasskeyRejected(Exception):
    """What a browser sent is no passkey of this account, or not an answer to what was asked."""


@dataclass(frozen=True, slots=True)
class Passkey:
    """A key pair of which the person holds the private half."""

    id: str
    user_id: str
    credential_id: bytes
    public_key: bytes = field(repr=False)
    sign_count: int
    name: str
    synced: bool
    created_at: int
    used_at: int | None


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """What is kept of a passkey that is new here."""

    credential_id: bytes
    public_key: bytes = field(repr=False)  # COSE
    sign_count: int
    name: str
    synced: bool


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Who passkeys are for: a host name, never an address (Web Authentication section 5.1.2 asks for a domain)."""

    host: str
    origin: str

    @classmethod
    def of(cls, issuer: str) -> "RelyingParty | None":
        """The issuer, if browsers make passkeys for it."""
        parts = urlsplit(issuer)
        try:
            ipaddress.ip_address(parts.hostname or "")
        except ValueError:
            return cls(parts.hostname or "", f"{parts.scheme}://{parts.netloc}")
        return None


@dataclass(frozen=True, slots=True)
class Ceremony:
    """One question to a browser: for whom, what for, and bound to what."""

    party: RelyingParty
    key: SealingKey
    purpose: str
    cookie: str = field(repr=False)

    def challenge(self, now: int) -> bytes:
        """A fresh challenge."""
        return challenges.make(self.key, purpose=self.purpose, cookie=self.cookie, now=now)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a browser sent to a ceremony's question."""

    ceremony: Ceremony
    credential: str = field(repr=False)


def creation_options(ceremony: Ceremony, account: Account, held: Sequence[Passkey], now: int) -> str:
    """What `navigator.credentials.create` is called with, as JSON."""
    options = webauthn.generate_registration_options(
        rp_id=ceremony.party.host,
        rp_name=ceremony.party.host,
        user_id=account.id.encode(),
        user_name=account.username,
        challenge=ceremony.challenge(now),
        timeout=challenges.LIFETIME_SECONDS * 1000,
        authenticator_selection=structs.AuthenticatorSelectionCriteria(
            resident_key=structs.ResidentKeyRequirement.REQUIRED, user_verification=REQUIRED
        ),
        exclude_credentials=_described(held),
    )
    return webauthn.options_to_json(options)


def request_options(ceremony: Ceremony, held: Sequence[Passkey], now: int) -> str:
    """What `navigator.credentials.get` is called with, as JSON; for nobody in particular when none are `held`."""
    options = webauthn.generate_authentication_options(
        rp_id=ceremony.party.host,
        challenge=ceremony.challenge(now),
        timeout=challenges.LIFETIME_SECONDS * 1000,
        allow_credentials=_described(held),
        user_verification=PREFERRED if held else REQUIRED,
    )
    return webauthn.options_to_json(options)


def of_user(connection: Connection, user_id: str) -> list[Passkey]:
    """Return what a person has, oldest first."""
    query = select(passkeys).where(passkeys.c.user_id == user_id).order_by(passkeys.c.created_at, passkeys.c.id)
    return [_passkey(row) for row in connection.execute(query)]


def find(connection: Connection, answer: Answer) -> Passkey | None:
    """Return the passkey that a browser names, before anything is proven."""
    query = select(passkeys).where(passkeys.c.credential_id == _parsed(answer).raw_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _passkey(row)


def add(connection: Connection, account: Account, answer: Answer, name: str, actor: Actor) -> None:
    """Keep a new passkey; raises `PasskeyRejected`."""
    parsed = _guarded(parse_registration_credential_json, answer.credential[:MAX_CREDENTIAL])
    challenge = _use_challenge(connection, answer.ceremony, parsed, actor.at)
    verified = _guarded(
        webauthn.verify_registration_response,
        credential=parsed,
        expected_challenge=challenge,
        expected_rp_id=answer.ceremony.party.host,
        expected_origin=answer.ceremony.party.origin,
        require_user_verification=True,
    )
    known = select(passkeys.c.id).where(passkeys.c.credential_id == verified.credential_id)
    if connection.scalar(known) is not None or len(of_user(connection, account.id)) >= MAX_PASSKEYS:
        raise PasskeyRejected("the passkey is known already, or there are too many")
    new = NewPasskey(
        credential_id=verified.credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        name=_name(name),
        synced=verified.credential_backed_up,
    )
    _keep(connection, account, new, actor)
    held.write_added(connection, account, held.PASSKEY, actor, called=f"the passkey {new.name}")


def adopt(connection: Connection, account: Account, new: NewPasskey, actor: Actor) -> None:
    """Let a passkey count that was made for this host and this person's id before; raises `PasskeyRejected`."""
    _guarded(decode_credential_public_key, new.public_key)
    known = select(passkeys.c.id).where(passkeys.c.credential_id == new.credential_id)
    if connection.scalar(known) is not None or len(of_user(connection, account.id)) >= MAX_PASSKEYS:
        raise PasskeyRejected("a passkey is known here already, or there are too many")
    _keep(connection, account, replace(new, name=_name(new.name)), actor)


def check(connection: Connection, passkey: Passkey, answer: Answer, actor: Actor, *, alone: bool) -> bool:
    """Whether its holder is there; without a password (`alone`) they must have unlocked it.

    False for a passkey of which there seem to be two; raises `PasskeyRejected` for everything else that is wrong.
    """
    parsed = _parsed(answer)
    challenge = _use_challenge(connection, answer.ceremony, parsed, actor.at)
    if parsed.response.user_handle not in (None, passkey.user_id.encode()):
        raise PasskeyRejected("the passkey belongs to somebody else")
    verified = _guarded(
        webauthn.verify_authentication_response,
        credential=parsed,
        expected_challenge=challenge,
        expected_rp_id=answer.ceremony.party.host,
        expected_origin=answer.ceremony.party.origin,
        credential_public_key=passkey.public_key,
        credential_current_sign_count=0,  # compared below: a copy is more than a wrong answer
        require_user_verification=alone,
    )
    return _advance(connection, passkey, verified.new_sign_count, actor)


def remove(connection: Connection, account: Account, actor: Actor, *, passkey_id: str) -> None:
    """Take a passkey of this account away."""
    own = (passkeys.c.id == passkey_id) & (passkeys.c.user_id == account.id)
    name = connection.execute(delete(passkeys).where(own).returning(passkeys.c.name)).scalar()
    if name is not None:
        held.tell_removed(connection, account, held.PASSKEY, actor, called=f"the passkey {name}")


def _keep(connection: Connection, account: Account, new: NewPasskey, actor: Actor) -> None:
    values = {name: getattr(new, name) for name in new.__slots__}
    connection.execute(
        insert(passkeys).values(values | {"id": new_id(), "user_id": account.id, "created_at": actor.at})
    )
    held.tell_added(connection, account, held.PASSKEY, actor)


def _advance(connection: Connection, passkey: Passkey, count: int, actor: Actor) -> bool:
    """Web Authentication section 6.1.1: a counter that does not grow is that of a copy."""
    if (count or passkey.sign_count) and count <= passkey.sign_count:
        audit.record(connection, actor, "passkey.copied", about=passkey.user_id, passkey=passkey.id)
        return False
    same = (passkeys.c.id == passkey.id) & (passkeys.c.sign_count == passkey.sign_count)
    moved = update(passkeys).where(same).values(sign_count=count, used_at=actor.at)
    return bool(connection.execute(moved).rowcount)


def _parsed(answer: Answer) -> structs.AuthenticationCredential:
    text = answer.credential[:MAX_CREDENTIAL]
    parsed: structs.AuthenticationCredential = _guarded(parse_authentication_credential_json, text)
    return parsed


def _use_challenge(connection: Connection, ceremony: Ceremony, parsed: Any, now: int) -> bytes:
    """Use up and return the challenge that was answered; raises `PasskeyRejected`."""
    said = _guarded(parse_client_data_json, parsed.response.client_data_json)
    challenge: bytes = said.challenge
    if said.cross_origin:
        raise PasskeyRejected("the page that asked was inside a page of somebody else")
    fits = challenges.use(
        connection, challenge, ceremony.key, purpose=ceremony.purpose, cookie=ceremony.cookie, now=now
    )
    if not fits:
        raise PasskeyRejected("the challenge is not one of this browser, or it is used up or out of date")
    return challenge


def _guarded(read: Any, *given: Any, **named: Any) -> Any:
    """Whatever the library stumbles over in what a stranger sent, it is no passkey."""
    try:
        return read(*given, **named)
    except Exception as error:
        raise PasskeyRejected("what the browser sent does not fit") from error


def _described(held: Sequence[Passkey]) -> list[structs.PublicKeyCredentialDescriptor]:
    return [structs.PublicKeyCredentialDescriptor(id=passkey.credential_id) for passkey in held]


def _name(typed: str) -> str:
    return " ".join(typed.split())[:MAX_NAME] or "Passkey"


def _passkey(row: Row[Any]) -> Passkey:
    return Passkey(
        id=row.id,
        user_id=row.user_id,
        credential_id=row.credential_id,
        public_key=row.public_key,
        sign_count=row.sign_count,
        name=row.name,
        synced=row.synced,
        created_at=row.created_at,
        used_at=row.used_at,
    )
