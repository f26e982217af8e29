"""What the AppService may be told beyond the settings of every member."""

from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field

from lib_events.http.destinations import Destinations
from lib_events.settings import Names, Settings, SettingsRejected

SERVICE: Final = "app-svc"
CLIENT_ID: Final = "evs-app"  # how we call the AuthService
METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
MCP_PATH: Final = "/mcp"


class AppSettings(Settings):
    """Settings of the AppService."""

    body_limit_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    lease_seconds: float = Field(default=20.0, ge=1, le=3600)  # PostgreSQL: so long a dead engine keeps its runs
    # Networks that webhooks may reach although they are not public.
    webhook_allow_private: Names = Field(default_factory=list)
    step_processes: int | None = Field(default=None, ge=1, le=256)  # for process=True; default: one for each CPU
    queues: Names = Field(default_factory=list)  # whose runs this process works on; default: every queue's
    worker_tags: Names = Field(default_factory=list)  # what workflows may require of a process: gpu, in-the-office
    run_retention_days: float = Field(default=30, ge=1)  # of runs that have ended; a key of an hour ago must hold
    run_retention_failed_days: float | None = Field(default=None, ge=1)  # of failed ones; None: like the others
    run_retention_count: int | None = Field(default=None, ge=1)
    run_archive: Path | None = None  # a folder that keeps runs before they go
    drain_seconds: float = Field(default=10.0, ge=0)  # what may end by itself, once we are told to stop
    mcp: bool = True  # are workflows tools for agents? They take what REST takes: a token, its scopes, a role

    @property
    def database(self) -> str:
        """The URL of our database."""
        return self.database_url_of(SERVICE)

    @property
    def resource_metadata(self) -> str:
        """Where our 401 sends a client (RFC 9728)."""
        return f"{self.app_url}{METADATA_PATH}"

    @property
    def mcp_url(self) -> str:
        """What agents connect to."""
        return f"{self.app_url}{MCP_PATH}"

    @property
    def mcp_metadata(self) -> str:
        """Where a 401 sends an agent: between the host and the path of what it asked (RFC 9728 section 3.1)."""
        return f"{self.app_url}{METADATA_PATH}{MCP_PATH}"

    @property
    def destinations(self) -> Destinations:
        """Where webhooks may go; raises `SettingsRejected`."""
        try:
            return Destinations(tuple(ip_network(text) for text in self.webhook_allow_private))
        except ValueError as error:
            raise SettingsRejected(
                f"EVS_WEBHOOK_ALLOW_PRIVATE must be networks such as 10.1.0.0/16, separated by commas: {error}"
            ) from error

    def check_worker(self) -> None:
        """Raise `SettingsRejected` where a second engine process cannot work."""
        if self.database.startswith("sqlite:"):
            raise SettingsRejected(
                "app-svc worker needs PostgreSQL: a SQLite file has one engine process, and that is app-svc serve; "
                "set EVS_DATABASE_URL=postgresql://…, or run app-svc serve alone"
            )

    def check_urls(self) -> None:
        """Raise `SettingsRejected` for a URL that tokens cannot be meant for."""
        for name, url in (("EVS_APP_URL", self.app_url), ("EVS_AUTH_URL", self.auth_url)):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise SettingsRejected(f"{name} must look like https://host or http://127.0.0.1:8002, got {url!r}")
