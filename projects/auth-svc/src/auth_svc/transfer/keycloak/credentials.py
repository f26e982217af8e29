"""What people of a realm prove themselves with, as far as it can be checked here."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from auth_svc.people import password_hashes
from auth_svc.people.password_hashes import HashRejected
from auth_svc.transfer.keycloak.realm import Credential

ARGON2_VERSIONS = {"1.0": 16, "1.3": 19}
DIGESTS = {"pbkdf2": "sha1", "pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}
APP = {"subType": "totp", "digits": 6, "period": 30, "algorithm": "HmacSHA1"}
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, binascii.Error)


class NotTaken(Exception):
    """A credential cannot be used here; the text says why."""


def password_hash(credential: Credential) -> str:
    """Return a password's hash in a notation that is read here; raises `NotTaken`."""
    if credential.value is not None:
        raise NotTaken("the export holds the password itself instead of its hash")
    try:
        kept = _hash(*_parts(credential))
    except MALFORMED as error:
        raise NotTaken("the password's hash is not as Keycloak writes it") from error
    try:
        return password_hashes.accept(kept)
    except HashRejected as error:
        raise NotTaken(str(error)) from error


def app_secret(credential: Credential) -> str:
    """Return an authenticator app's secret in Base32; raises `NotTaken`."""
    try:
        secret, data = from_json(credential.secretData)["value"], from_json(credential.credentialData)
        other = [name for name, wanted in APP.items() if data.get(name, wanted) != wanted]
        encoded = data.get("secretEncoding") == "BASE32"
        text = str(secret).upper().rstrip("=") if encoded else base64.b32encode(secret.encode()).decode().rstrip("=")
        base64.b32decode(text + "=" * (-len(text) % 8))
    except MALFORMED as error:
        raise NotTaken("an authenticator app's secret is not as Keycloak writes it") from error
    if other:
        got = ", ".join(f"{name} {data[name]}" for name in other)
        raise NotTaken(f"an authenticator app must show six digits every 30 seconds by SHA-1, got {got}")
    if not 23 <= len(text) <= 400:
        raise NotTaken("an authenticator app's secret must have 14 to 250 bytes; they have to set up another one")
    return text


def _parts(credential: Credential) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the secret and the data about it; until version 7 they were fields of their own."""
    if credential.hashedSaltedValue is not None:
        data = {"algorithm": credential.algorithm, "hashIterations": credential.hashIterations}
        return {"value": credential.hashedSaltedValue, "salt": credential.salt or ""}, data
    return from_json(credential.secretData), from_json(credential.credentialData)


def _hash(secret: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    match data["algorithm"]:
        case "argon2":
            return _argon2id(secret, data)
        case "bcrypt":  # a wide-spread extension; its value is the whole text
            return str(secret["value"])
        case algorithm if algorithm in DIGESTS:
            salt, derived = _decoded(secret["salt"]), _decoded(secret["value"])
            return password_hashes.in_phc_notation(DIGESTS[algorithm], int(data["hashIterations"]), salt, derived)
        case algorithm:
            raise NotTaken(f"passwords by {algorithm} cannot be checked here")


def _argon2id(secret: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    more = data.get("additionalParameters") or {}
    if (kind := _first(more, "type")) != "id":
        raise NotTaken(f"passwords by Argon2{kind} cannot be checked here, only by Argon2id")
    version, memory = ARGON2_VERSIONS[_first(more, "version") or "1.3"], int(_first(more, "memory") or 0)
    lanes, passes = int(_first(more, "parallelism") or 0), int(data["hashIterations"])
    salt, derived = (base64.b64encode(_decoded(secret[name])).decode().rstrip("=") for name in ("salt", "value"))
    return f"$argon2id$v={version}$m={memory},t={passes},p={lanes}${salt}${derived}"


def _first(parameters: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = parameters.get(name)
    return str(values[0]) if values else None


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
