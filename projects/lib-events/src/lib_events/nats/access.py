"""How we reach NATS: read from the settings, and checked before anybody waits for a server."""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import SplitResult, unquote, urlsplit

import nats.errors
from nats.aio.client import Client

from lib_events.secret_file import SecretFileExposed, read_secret
from lib_events.settings import Settings, SettingsRejected

DEFAULT_PORT = 4222
CLOSE_SECONDS = 2.0
JWT_MARK = "BEGIN NATS USER JWT"


class Login(TypedDict, total=False):
    """How the URL signs us in, as nats-py takes it."""

    user: str
    password: str
    token: str


class ConnectOptions(Login, total=False):
    """Servers, keys and certificates, as nats-py takes them."""

    servers: list[str]
    user_credentials: str
    nkeys_seed: str
    tls: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """The servers of one cluster and what opens them; printing it shows no secret."""

    servers: tuple[str, ...]
    seed_file: Path | None = None  # an nkey seed, or a credentials file with a JWT
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    replicas: int = 1
    login: Login = field(default_factory=Login, repr=False)

    @classmethod
    def parse(
        cls, url: str, *, seed_file: Path | None = None, tls: ssl.SSLContext | None = None, replicas: int = 1
    ) -> "NatsAccess":
        """Read `tls://user:password@a:4222,tls://b:4222`; raises `SettingsRejected`."""
        parts = [_split(text.strip()) for text in url.split(",") if text.strip()]
        schemes = {part.scheme for part in parts}
        if len(schemes) != 1:
            raise SettingsRejected(
                f"EVS_NATS_URL must name servers that are all nats:// or all tls://, got {len(parts)} "
                f"with {sorted(schemes)}; write tls://a:4222,tls://b:4222"
            )
        if tls is None and "tls" in schemes:
            tls = ssl.create_default_context()
        return cls(
            tuple(f"{part.scheme}://{_host(part)}" for part in parts),
            seed_file,
            tls,
            replicas,
            _login_of_all(parts, seed_file),
        )

    @property
    def demands_tls(self) -> bool:
        """Whether a server that speaks in the clear must not be spoken to."""
        return self.servers[0].startswith("tls://")

    def connect_options(self) -> ConnectOptions:
        """What to connect with; a credentials file is looked at anew each time."""
        options = ConnectOptions(servers=list(self.servers))
        options.update(self.login)  # type: ignore[typeddict-item]  # a Login is a part of it
        if self.tls is not None:
            options["tls"] = self.tls
        if self.seed_file is not None and JWT_MARK in self.seed_file.read_text():
            options["user_credentials"] = str(self.seed_file)
        elif self.seed_file is not None:
            options["nkeys_seed"] = str(self.seed_file)
        return options

    def __str__(self) -> str:
        return ",".join(self.servers)


class _Headers(Mapping[str, str]):
    """Headers, read at the first question: of most messages nobody asks any."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    @cached_property
    def _parsed(self) -> dict[str, str]:
        pairs = (line.partition(":") for line in self._raw.decode("utf-8", "replace").split("\r\n") if ":" in line)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def __getitem__(self, name: str) -> str:
        return self._parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed)

    def __len__(self) -> int:
        return len(self._parsed)

    def __bool__(self) -> bool:
        return True


class NatsClient(Client):
    """nats-py's client, with four of its habits changed."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002
        """Never speak in the clear to a server named by tls://, as nats-py does where it does not ask for TLS."""
        await super()._process_info(info, initial_connection)
        demanded = self._current_server is not None and self._current_server.uri.scheme == "tls"
        if demanded and initial_connection and not info.get("tls_required"):
            raise nats.errors.SecureConnRequiredError

    async def _process_op_err(self, e: Exception) -> None:
        """Drop a dead connection: nats-py would wait half a minute for the TLS good-bye of a server that hangs."""
        writer = getattr(self._transport, "_io_writer", None)
        if self.is_connected and writer is not None:
            writer.transport.abort()
        await super()._process_op_err(e)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> Any:
        """Read headers when somebody asks; nats-py looks at every character of every name of every message."""
        return _Headers(raw)

    async def close(self) -> None:
        """Close; nats-py would wait for ever for the good-bye of a server it has no TLS with."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await super().close()


def nats_access(settings: Settings, service: str) -> NatsAccess | None:
    """How `service` reaches NATS by its settings, None where there is no NATS; raises `SettingsRejected`."""
    if settings.nats_url is None:
        return None
    access = NatsAccess.parse(
        settings.nats_url,
        seed_file=_checked_seed_file(settings, service),
        tls=_tls(settings),
        replicas=settings.nats_replicas,
    )
    if access.tls is not None and not access.demands_tls:
        raise SettingsRejected(
            f"EVS_NATS_URL must be tls:// where EVS_NATS_CA or EVS_NATS_CERTIFICATE is set, got {access}"
        )
    return access


def seed_file(secrets: Path, service: str) -> Path:
    """Where the seed of a service lies that we made."""
    return secrets / f"nats-{service}.nk"


def _split(url: str) -> SplitResult:
    if "://" not in url:
        url = f"nats://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("nats", "tls") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SettingsRejected(
            f"EVS_NATS_URL must look like nats://host:4222 or tls://host:4222, got {url.rpartition('@')[2]!r}"
        )
    return parts


def _host(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    try:
        return f"{host}:{parts.port or DEFAULT_PORT}"
    except ValueError as error:
        raise SettingsRejected(f"EVS_NATS_URL must have ports from 1 to 65535: {host}: {error}") from None


def _login_of_all(parts: list[SplitResult], seed_file: Path | None) -> Login:
    """The one way to sign in: nats-py would forget it at the servers it hears of from the cluster."""
    logins = [login for login in map(_login, parts) if login]
    if any(login != logins[0] for login in logins):
        raise SettingsRejected("EVS_NATS_URL must sign in alike at all servers; write user and password at the first")
    if logins and seed_file is not None:
        raise SettingsRejected(
            f"NATS must be told one way to sign in, got the file {seed_file} and what EVS_NATS_URL says; remove one"
        )
    return logins[0] if logins else Login()


def _login(parts: SplitResult) -> Login:
    if parts.username is None:
        return Login()
    if parts.password is None:
        return Login(token=unquote(parts.username))
    return Login(user=unquote(parts.username), password=unquote(parts.password))


def _checked_seed_file(settings: Settings, service: str) -> Path | None:
    given = settings.nats_credentials_of(service)
    made = seed_file(settings.secrets, service)
    path = given or (made if made.exists() else None)
    if path is None:
        return None
    try:
        read_secret(path)
    except (SecretFileExposed, OSError) as error:
        raise SettingsRejected(f"the key of {service} for NATS cannot be used: {error}") from error
    return path


def _tls(settings: Settings) -> ssl.SSLContext | None:
    certificate, key = settings.nats_certificate, settings.nats_key
    if (certificate is None) != (key is None):
        raise SettingsRejected("EVS_NATS_CERTIFICATE and EVS_NATS_KEY must be set together; set the missing one")
    if settings.nats_ca is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.nats_ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # an SSLError is one
        raise SettingsRejected(
            "EVS_NATS_CA, EVS_NATS_CERTIFICATE and EVS_NATS_KEY must name PEM files that fit together, "
            f"got {settings.nats_ca}, {certificate} and {key}: {error}"
        ) from error
    return context
