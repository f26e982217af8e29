"""Where a client on a person's machine keeps its tokens: the system's keyring, or a file only they can read."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lib_auth.tokens import TokenSet
from lib_events.secret_file import write_secret

KEYRING_SERVICE = "event-based-svcs"
CONTEXT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCK_POLL_SECONDS = 0.05
DEFAULT_RESOURCE = ""


class StoreUnavailable(Exception):
    """Tokens cannot be kept or read there; the text says what to do."""


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """What one sign-in left behind: one refresh token and the newest access token per resource."""

    issuer: str
    client_id: str
    refresh_token: str | None = field(repr=False)
    id_token: str | None = field(default=None, repr=False)
    access: dict[str, TokenSet] = field(default_factory=dict, repr=False)
    proof_key: Mapping[str, Any] | None = field(default=None, repr=False)  # a private JWK: the tokens are bound to it
    # What a refresh was asked for with, until its answer is kept: whoever was killed meanwhile asks again as the same.
    idempotency_key: str | None = field(default=None, repr=False)

    def with_tokens(self, tokens: TokenSet, *, resource: str = DEFAULT_RESOURCE) -> "StoredTokens":
        """Return a copy that holds what the token endpoint just answered; the next refresh is another question."""
        return StoredTokens(
            issuer=self.issuer,
            client_id=self.client_id,
            refresh_token=tokens.refresh_token or self.refresh_token,
            id_token=tokens.id_token or self.id_token,
            access=self.access | {resource: tokens},
            proof_key=self.proof_key,
        )

    def to_json(self) -> str:
        """Return the form that is kept."""
        kept = {name: tokens.to_dict() | {"refresh_token": None} for name, tokens in self.access.items()}
        return json.dumps(
            {
                "issuer": self.issuer,
                "client_id": self.client_id,
                "refresh_token": self.refresh_token,
                "id_token": self.id_token,
                "access": kept,
                "proof_key": self.proof_key,
                "idempotency_key": self.idempotency_key,
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "StoredTokens":
        """Read what `to_json` made; raises `StoreUnavailable` when it is something else."""
        try:
            kept: dict[str, Any] = json.loads(text)
            return cls(
                issuer=kept["issuer"],
                client_id=kept["client_id"],
                refresh_token=kept["refresh_token"],
                id_token=kept["id_token"],
                access={name: TokenSet.from_dict(tokens) for name, tokens in kept["access"].items()},
                proof_key=kept.get("proof_key"),
                idempotency_key=kept.get("idempotency_key"),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreUnavailable("the kept tokens cannot be read; sign in again") from error


class TokenStore(Protocol):
    """Keeps the tokens of each context."""

    def load(self, context: str) -> StoredTokens | None:
        """Return what is kept for `context`, or None."""
        ...

    def save(self, context: str, tokens: StoredTokens) -> None:
        """Keep `tokens`; raises `StoreUnavailable`."""
        ...

    def delete(self, context: str) -> None:
        """Forget `context`."""
        ...


class FileStore:
    """One file per context, mode 0600, in a folder of mode 0700."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, context: str) -> StoredTokens | None:
        """Return what is kept; a file others can read is refused, not repaired."""
        path = self._path(context)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != os.getuid():
                    raise StoreUnavailable(f"{path} must belong to you alone (0600); delete it and sign in again")
                return StoredTokens.from_json(file.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be read: {error.strerror}") from error

    def save(self, context: str, tokens: StoredTokens) -> None:
        """Replace the file in one step, so that a reader never sees half of it."""
        path = self._path(context)
        try:
            write_secret(path, tokens.to_json())
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error

    def delete(self, context: str) -> None:
        """Forget `context`."""
        path = self._path(context)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be deleted: {error.strerror}") from error

    def _path(self, context: str) -> Path:
        return self._folder / f"{_check_name(context)}.tokens.json"


class KeyringStore:
    """The system's keyring."""

    def load(self, context: str) -> StoredTokens | None:
        """Return what is kept for `context`, or None."""
        import keyring  # noqa: PLC0415 - slow to import, needed by one command in ten
        from keyring.errors import KeyringError  # noqa: PLC0415

        try:
            kept = keyring.get_password(KEYRING_SERVICE, _check_name(context))
        except KeyringError as error:
            raise StoreUnavailable(f"the keyring cannot be read: {error}") from error
        return StoredTokens.from_json(kept) if kept else None

    def save(self, context: str, tokens: StoredTokens) -> None:
        """Keep `tokens` in the keyring."""
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError  # noqa: PLC0415

        try:
            keyring.set_password(KEYRING_SERVICE, _check_name(context), tokens.to_json())
        except KeyringError as error:
            raise StoreUnavailable(f"the keyring cannot be written: {error}; use --insecure-storage") from error

    def delete(self, context: str) -> None:
        """Forget `context`."""
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError, PasswordDeleteError  # noqa: PLC0415

        try:
            keyring.delete_password(KEYRING_SERVICE, _check_name(context))
        except PasswordDeleteError:
            return  # it was not there: that is what was wanted
        except KeyringError as error:
            raise StoreUnavailable(f"the keyring cannot be written: {error}") from error


def keyring_is_usable() -> bool:
    """Whether this machine has a keyring that keeps secrets (a headless one often has none)."""
    import keyring  # noqa: PLC0415
    from keyring.backends import fail, null  # noqa: PLC0415

    return not isinstance(keyring.get_keyring(), fail.Keyring | null.Keyring)


@contextlib.asynccontextmanager
async def locked(folder: Path, context: str, *, within_seconds: float = 30.0) -> AsyncIterator[None]:
    """Hold the context's lock across processes: a refresh token may be used by one of them only."""
    path = folder / f"{_check_name(context)}.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error
    deadline = time.monotonic() + within_seconds
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"another process has held the tokens of {context!r} for {within_seconds:.0f} s")
            await asyncio.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)  # releases the lock; so does the end of the process, however it ends


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_name(context: str) -> str:
    if not CONTEXT_NAME.fullmatch(context):
        raise StoreUnavailable(f"context name must match {CONTEXT_NAME.pattern}, got {context!r}; choose another")
    return context
