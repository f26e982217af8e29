"""What `evs` remembers about its user: named contexts, the current one, where sign-ins are kept (XDG folders)."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cli_proj.failure import CommandFailed
from lib_events.secret_file import write_secret

type Storage = Literal["keyring", "file"]


@dataclass(frozen=True, slots=True)
class Server:
    """A product somewhere: where its services are."""

    auth_url: str
    app_url: str
    gui_url: str


@dataclass(frozen=True, slots=True)
class Config:
    """The content of the configuration file."""

    current: str | None = None
    servers: dict[str, Server] = field(default_factory=dict)
    sign_ins: dict[str, Storage] = field(default_factory=dict)  # where the tokens of each sign-in are

    def with_server(self, name: str, server: Server) -> "Config":
        """Return a copy that knows `server`."""
        return replace(self, servers=self.servers | {name: server})

    def with_sign_in(self, name: str, storage: Storage | None) -> "Config":
        """Return a copy that knows where the sign-in `name` is kept; None forgets it."""
        others = {known: where for known, where in self.sign_ins.items() if known != name}
        return replace(self, sign_ins=others | ({name: storage} if storage else {}))


def config_file() -> Path:
    """Where the configuration is."""
    return _folder("XDG_CONFIG_HOME", ".config") / "config.json"


def state_folder() -> Path:
    """Where sign-ins without a keyring, and the locks of all, are."""
    return _folder("XDG_STATE_HOME", ".local/state")


def load_config() -> Config:
    """Read the configuration; there is none at first."""
    path = config_file()
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        servers = {name: Server(**server) for name, server in kept.get("contexts", {}).items()}
        return Config(kept.get("current"), servers, kept.get("sign_ins", {}))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CommandFailed(f"{path} cannot be read: {error}", hint=f"correct or delete {path}") from error


def save_config(config: Config) -> None:
    """Replace the configuration."""
    servers = {name: asdict(server) for name, server in config.servers.items()}
    content = {"current": config.current, "contexts": servers, "sign_ins": config.sign_ins}
    try:
        write_secret(config_file(), json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise CommandFailed(f"{config_file()} cannot be written: {error.strerror}") from error


def _folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "evs"
