"""What the AuthService may be told beyond the settings of every member."""

from typing import Final
from urllib.parse import urlsplit

from pydantic import Field

from auth_svc.clients import is_loopback
from lib_events.settings import Names, Settings, SettingsRejected

SERVICE: Final = "auth-svc"


class AuthSettings(Settings):
    """Settings of the AuthService."""

    admin_password: str | None = Field(default=None, repr=False)  # sets the first password of `admin`, once
    registration: bool = False  # may people make themselves an account?
    require_second_factor: Names = Field(default=[])  # roles whose holders must have two factors
    upstream_networks: Names = Field(default=[])  # that providers may be in, beside public addresses: 10.0.0.0/8
    gui_access_seconds: int = Field(default=300, ge=1, le=3600)  # the demo shows a token expire
    trusted_proxies: Names = Field(default=[])  # whose X-Forwarded-For says where a request comes from
    hash_threads: int | None = Field(default=None, ge=1)

    def check_issuer(self) -> str:
        """Return the issuer; raises `SettingsRejected` where browsers would send passwords in the clear."""
        parts = urlsplit(self.auth_url)
        if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
            raise SettingsRejected(
                f"EVS_AUTH_URL must be scheme, host and port alone, got {self.auth_url!r}; give the issuer its own host"
            )
        if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)):
            return self.auth_url
        raise SettingsRejected(
            f"EVS_AUTH_URL must be https, or http on a loopback address, got {self.auth_url!r}; "
            "put a TLS proxy in front, set EVS_AUTH_URL to its https URL and EVS_TRUSTED_PROXIES to its address"
        )
