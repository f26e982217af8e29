"""A document that only whoever has its passphrase reads: what `evs admin export --sealed` writes and `import` opens."""

import base64
import getpass
import json
import os
import secrets
from typing import Any

from cli_proj.failure import CommandFailed, usage
from cli_proj.messages import is_interactive
from lib_events.sealed import SealingKey, SecretUnreadable

FORMAT, VERSION = "evs-sealed", 1  # the version says how a passphrase becomes a key, too
PURPOSE = f"document {VERSION}"
SALT_BYTES = 16
SHORTEST = 12
VARIABLE = "EVS_EXPORT_PASSPHRASE"


def seal(text: str, passphrase: str) -> str:
    """Return the document to keep."""
    salt = secrets.token_bytes(SALT_BYTES)
    sealed = SealingKey.of_passphrase(passphrase, salt).seal(text, purpose=PURPOSE)
    return json.dumps({"format": FORMAT, "version": VERSION, "salt": _text(salt), "sealed": _text(sealed)}) + "\n"


def is_sealed(document: Any) -> bool:
    """Whether it has to be opened first."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def unseal(document: Any, passphrase: str) -> str:
    """Return what was sealed; raises `CommandFailed`."""
    if document.get("version") != VERSION:
        raise CommandFailed("the document was sealed by a later release", hint="take that one's evs")
    try:
        salt, sealed = (base64.b64decode(document[name], validate=True) for name in ("salt", "sealed"))
        return SealingKey.of_passphrase(passphrase, salt).unseal(sealed, purpose=PURPOSE)
    except (SecretUnreadable, KeyError, TypeError, ValueError) as error:
        raise CommandFailed("the document cannot be opened: it was changed, or the passphrase is another") from error


def new_passphrase() -> str:
    """Return the passphrase to seal with, typed twice where nobody has set it; raises `CommandFailed`."""
    chosen = passphrase()
    if len(chosen) < SHORTEST:
        raise usage(f"a passphrase must have at least {SHORTEST} characters: whoever has the file may guess for ever")
    if VARIABLE not in os.environ and getpass.getpass("Once more: ") != chosen:
        raise usage("the two are not the same")
    return chosen


def passphrase() -> str:
    """Return the passphrase, of the environment or typed; raises `CommandFailed`."""
    if (given := os.environ.get(VARIABLE)) is not None:
        return given
    if not is_interactive():
        raise usage("the document needs a passphrase", hint=f"set {VARIABLE}")
    return getpass.getpass("Passphrase of the document: ")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
