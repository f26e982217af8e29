"""Which product a command talks to, and as whom it may: decided purely from options, environment and files."""

import hashlib
import ipaddress
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli_proj.config import Config, load_config
from cli_proj.failure import CommandFailed, not_allowed, not_found, usage
from lib_events.secret_file import SecretFileExposed, read_secret

LOCAL = "local"
ENVIRONMENT = "environment"
DATA_FOLDER = ".evs"
CONTEXT_FILE = "context.json"
LOCAL_CLIENT = "evs-local"
DEFAULT_URLS = {"auth": "http://127.0.0.1:8001", "app": "http://127.0.0.1:8002", "gui": "http://127.0.0.1:8000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One product, and the credentials that come with it (not those of somebody who signed in)."""

    name: str
    auth_url: str
    app_url: str
    gui_url: str
    data: Path | None = None  # of a product on this machine
    token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)

    @property
    def admin_resource(self) -> str:
        """The audience of the admin API."""
        return f"{self.auth_url}/v1/admin"

    @property
    def sign_in_name(self) -> str:
        """The name under which a person's tokens are kept: a product, not a folder's name, has them."""
        if self.data is None and self.name != ENVIRONMENT:
            return self.name
        place = str(self.data) if self.data else self.auth_url
        return f"{self.name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def find_data(start: Path | None = None) -> Path | None:
    """Return the data folder of the product that runs here: EVS_DATA, else `.evs` upward, like git."""
    if given := os.environ.get("EVS_DATA"):
        return Path(given).absolute()
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        candidate = folder / DATA_FOLDER
        if candidate.is_dir():
            return candidate
    return None


def resolve_context(name: str | None = None) -> Context:
    """Return the context to use: the named one, that of the environment, the current one, or the local one."""
    config = load_config()
    if name is None and ("EVS_APP_URL" in os.environ or "EVS_AUTH_URL" in os.environ):
        return _with_environment(_environment_context())
    wanted = name or config.current or LOCAL
    found = _local_context() if wanted == LOCAL else _named_context(config, wanted)
    return _with_environment(found)


def read_local_context(data: Path) -> Context:
    """Read what `evs up` left in `data`; raises `CommandFailed` when nothing runs there."""
    try:
        kept: dict[str, Any] = json.loads(read_secret(data / CONTEXT_FILE))
        context = Context(
            name=LOCAL, data=data, auth_url=kept["auth_url"], app_url=kept["app_url"], gui_url=kept["gui_url"]
        )
    except FileNotFoundError:
        raise not_found(f"no product runs on {data}", hint=f"evs up --data {data}") from None
    except SecretFileExposed as error:
        raise not_allowed(str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed(f"{data / CONTEXT_FILE} cannot be read", hint="evs down, then evs up") from error
    return context if not is_loopback(context.auth_url) else _with_local_client(context)


def is_loopback(url: str) -> bool:
    """Whether `url` leads to this machine only."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(name: str, url: str) -> str:
    """Return `url` if tokens can be sent there without being read on the way."""
    try:
        parts = urlsplit(url)
        is_address = parts.hostname is not None and parts.port != 0
    except ValueError:
        is_address = False
    if is_address and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))):
        return url.rstrip("/")
    raise usage(f"{name} must be https, or http on a loopback address, got {url!r}")


def _local_context() -> Context:
    data = find_data()
    if data is None:
        raise not_found(
            f"no product runs here: there is no {DATA_FOLDER} in {Path.cwd()} or above",
            hint="evs up, or go to the folder where it runs, or name another: evs context list",
        )
    return read_local_context(data)


def _with_local_client(context: Context) -> Context:
    """Add the credentials of this machine's user, which must be readable by that user only."""
    assert context.data is not None  # noqa: S101 - for the type checker
    try:
        secret = read_secret(context.data / "secrets" / f"{LOCAL_CLIENT}.secret")
    except FileNotFoundError:
        return context
    except SecretFileExposed as error:
        raise not_allowed(str(error), hint="evs down, then evs up: it makes a new one") from error
    return replace(context, client_id=LOCAL_CLIENT, client_secret=secret)


def _named_context(config: Config, name: str) -> Context:
    server = config.servers.get(name)
    if server is None:
        known = ", ".join([LOCAL, *sorted(config.servers)])
        raise not_found(f"there is no context {name!r}; known: {known}", hint="evs context add NAME --app-url URL …")
    return Context(name=name, auth_url=server.auth_url, app_url=server.app_url, gui_url=server.gui_url)


def _environment_context() -> Context:
    urls = {
        part: check_url(f"EVS_{part.upper()}_URL", os.environ.get(f"EVS_{part.upper()}_URL", default))
        for part, default in DEFAULT_URLS.items()
    }
    return Context(name=ENVIRONMENT, auth_url=urls["auth"], app_url=urls["app"], gui_url=urls["gui"])


def _with_environment(context: Context) -> Context:
    """Let EVS_TOKEN or EVS_CLIENT_ID and EVS_CLIENT_SECRET win over what a context brings."""
    if token := os.environ.get("EVS_TOKEN"):
        return replace(context, token=token, client_id=None, client_secret=None)
    client_id, secret = os.environ.get("EVS_CLIENT_ID"), os.environ.get("EVS_CLIENT_SECRET")
    if bool(client_id) != bool(secret):
        raise not_allowed("EVS_CLIENT_ID and EVS_CLIENT_SECRET must be set together, got only one of them")
    return replace(context, client_id=client_id, client_secret=secret) if client_id else context
