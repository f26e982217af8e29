"""Settings of all members: flags win over `EVS_*` in the environment, that over the settings file."""

import logging
import os
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from lib_events.durable_files import make_folder, write_whole

logger = logging.getLogger(__name__)

type ServiceName = Literal["auth-svc", "app-svc"]

LOOPBACK = "127.0.0.1"
IGNORE = ".gitignore"
STRANGERS_ALLOWED = frozenset(("lost+found", IGNORE))  # what a fresh folder may already hold
# What one service alone may be told. They share a settings file, so each knows the others' names.
OF_ONE_SERVICE = frozenset(
    {
        "admin_password", "audit_retention_days", "breached_passwords", "client_documents", "client_registration",
        "gui_access_seconds", "hash_threads", "mail_from", "mail_new_devices", "outbound_networks",
        "refresh_days", "refresh_grace_seconds", "registration", "require_second_factor", "sealing_key",
        "session_minutes", "signing_key_days", "smtp_url", "trusted_proxies", "unused_client_days",
        "body_limit_bytes", "drain_seconds", "lease_seconds", "mcp", "queues", "run_archive",
        "run_retention_count", "run_retention_days", "run_retention_failed_days", "step_processes",
        "webhook_allow_private", "worker_tags",
    }
)  # fmt: skip
LIKENESS = 0.8  # from which on an unknown name is a known one that was misspelt


class SettingsRejected(Exception):
    """A setting must be changed; the text says which and how."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _strip_slash(value: object) -> object:
    return value.rstrip("/") if isinstance(value, str) else value


def _as_browsers_say(origin: str) -> str:
    """An origin as a page's browser sends it (RFC 6454 section 6.1), or nobody would ever be let in."""
    given = urlsplit(origin.rstrip("/").lower())
    try:
        usual, _ = {"http": ":80", "https": ":443"}[given.scheme], given.port
    except (KeyError, ValueError):  # another scheme, a port that is no number
        usual = ""
    if not usual or not given.hostname or "@" in given.netloc or any(given[2:]):
        raise ValueError("each must be an origin like https://shop.example, without a path; separate several by commas")
    return f"{given.scheme}://{given.netloc.removesuffix(':').removesuffix(usual)}"


type Names = Annotated[list[str], NoDecode, BeforeValidator(_split)]  # `a,b` in the environment
type Origins = Annotated[list[Annotated[str, AfterValidator(_as_browsers_say)]], NoDecode, BeforeValidator(_split)]
type BaseUrl = Annotated[str, BeforeValidator(_strip_slash)]


def _loopback(port_field: str) -> Any:
    return Field(default_factory=lambda data: f"http://{LOOPBACK}:{data[port_field]}", validate_default=True)


class Settings(BaseSettings):
    """What every member may be told; a member adds its own fields by subclassing."""

    model_config = SettingsConfigDict(env_prefix="EVS_", env_ignore_empty=True, extra="ignore", frozen=True)

    data: Path = Path(".evs")
    host: str = LOOPBACK
    gui_port: int = Field(default=8000, ge=0, le=65535)
    auth_port: int = Field(default=8001, ge=0, le=65535)
    app_port: int = Field(default=8002, ge=0, le=65535)
    gui_url: BaseUrl = _loopback("gui_port")
    auth_url: BaseUrl = _loopback("auth_port")
    app_url: BaseUrl = _loopback("app_port")
    # These may hold passwords: they are kept out of repr.
    database_url: str | None = Field(default=None, repr=False)
    auth_database_url: str | None = Field(default=None, repr=False)
    app_database_url: str | None = Field(default=None, repr=False)
    nats_url: str | None = Field(default=None, repr=False)  # None: the bundled server; else the servers of a cluster
    auth_nats_credentials: Path | None = None  # an nkey seed or a .creds file; None: what DATA/secrets holds
    app_nats_credentials: Path | None = None
    nats_ca: Path | None = None
    nats_certificate: Path | None = None
    nats_key: Path | None = None
    nats_replicas: int = Field(default=1, ge=1, le=5)
    event_retention_days: float = Field(default=30, ge=8)  # a stream keeps a week: an event must not come again
    event_retention_count: int | None = Field(default=None, ge=100_000)
    workflows: Names = []
    cors_origins: Origins = []

    @classmethod
    def read(cls, **flags: Any) -> Self:
        """The settings, `flags` over all others; raises `SettingsRejected` that names what must be changed."""
        try:
            return cls(**flags)
        except ValidationError as error:
            # Without what was given: it may be a secret.
            first = error.errors(include_url=False, include_input=False)[0]
            name = "EVS_" + "_".join(part for part in first["loc"] if isinstance(part, str)).upper()
            raise SettingsRejected(f"{name} is not right: {first['msg']}") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the settings file."""
        flags = init_settings()
        data = Path(flags.get("data") or os.environ.get("EVS_DATA") or ".evs")
        return init_settings, env_settings, _in_file(settings_cls, settings_file(data))

    @property
    def secrets(self) -> Path:
        """The folder of generated secrets."""
        return self.data / "secrets"

    def database_url_of(self, service: ServiceName) -> str:
        """The database of `service`: its own setting, else its schema of `database_url`, else a file in DATA."""
        name = service.removesuffix("-svc")
        own = self.auth_database_url if service == "auth-svc" else self.app_database_url
        if own is not None:
            return own
        if self.database_url is not None:
            return _with_schema(self.database_url, f"evs_{name}")
        return f"sqlite:///{(self.data / f'{name}.db').absolute()}"

    def nats_credentials_of(self, service: str) -> Path | None:
        """The file `service` signs in to NATS with, if one is named."""
        return {"auth-svc": self.auth_nats_credentials, "app-svc": self.app_nats_credentials}.get(service)

    def prepare_data(self) -> Path:
        """Make DATA private (0700) and invisible to git.

        Raises `SettingsRejected` for somebody else's folder and for one that cannot be written.
        """
        try:
            self._prepare_data()
        except OSError as error:
            raise SettingsRejected(
                f"data folder must be writable, got {self.data}: {error.strerror}; "
                "choose another with --data or EVS_DATA"
            ) from error
        return self.data

    def _prepare_data(self) -> None:
        if self.data.exists() and not is_data_folder(self.data):
            strangers = {entry.name for entry in self.data.iterdir()} - STRANGERS_ALLOWED
            if strangers:
                raise SettingsRejected(
                    f"data folder must be empty or made by evs, got {self.data} with {min(strangers)!r} in it; "
                    "choose another with --data or EVS_DATA"
                )
        make_folder(self.data)
        self.data.chmod(0o700)
        if not is_data_folder(self.data):
            write_whole(self.data / IGNORE, "*\n")
        make_folder(self.secrets)


def is_data_folder(folder: Path) -> bool:
    """Whether evs made `folder`: it ignores everything in itself, which nobody else's folder does."""
    try:
        return (folder / IGNORE).read_text(encoding="utf-8").startswith("*\n")
    except (OSError, UnicodeDecodeError):
        return False


def settings_file(data: Path) -> Path:
    """Where the settings file is, if there is one."""
    return Path(os.environ.get("EVS_SETTINGS") or data / "settings.toml")


def _in_file(settings: type[BaseSettings], path: Path) -> TomlConfigSettingsSource:
    try:
        source = TomlConfigSettingsSource(settings, path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsRejected(f"settings file must be TOML, got {path}: {error}; correct or remove it") from error
    _check_names(source.toml_data, settings.model_fields.keys() | OF_ONE_SERVICE, path)
    return source


def _check_names(given: Iterable[str], known: Iterable[str], path: Path) -> None:
    """Refuse what looks like a name we know and is none; anything else may be a setting of somebody's own service."""
    names = sorted(known)
    unknown = [name for name in given if name not in names]
    plain = {name: name.lower().replace("-", "_").removeprefix("evs_") for name in unknown}
    meant = {name: near[0] for name in unknown if (near := get_close_matches(plain[name], names, 1, LIKENESS))}
    if meant:
        said = ", ".join(f"{name} (meant: {near}?)" for name, near in meant.items())
        raise SettingsRejected(f"settings file must have known names, got {said} in {path}; correct or remove them")
    if unknown:
        logger.warning("the settings file %s says %s, which this service does not know", path, ", ".join(unknown))


def _with_schema(url: str, schema: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise SettingsRejected(
            f"EVS_DATABASE_URL must start with postgresql://, got {parts.scheme!r}; "
            "services never share a SQLite file: set EVS_AUTH_DATABASE_URL and EVS_APP_DATABASE_URL"
        )
    options = dict(parse_qsl(parts.query)) | {"schema": schema}
    return urlunsplit(parts._replace(query=urlencode(options)))
