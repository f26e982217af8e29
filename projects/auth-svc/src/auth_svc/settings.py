"""What the AuthService may be told beyond the settings of every member."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from auth_svc.loopback import is_loopback
from lib_events.http.destinations import Destinations
from lib_events.settings import Names, Settings, SettingsRejected

LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SERVICE: Final = "auth-svc"
REGISTRATION_SWITCH = {"true": "open", "1": "open", "false": "off", "0": "off"}  # it was once a mere switch


def _read_registration(value: object) -> object:
    return REGISTRATION_SWITCH.get(str(value).lower(), value)


type Registration = Annotated[Literal["off", "invited", "open"], BeforeValidator(_read_registration)]


class AuthSettings(Settings):
    """Settings of the AuthService."""

    admin_password: str | None = Field(default=None, repr=False)  # sets the first password of `admin`, once
    registration: Registration = "off"  # who may make themselves an account
    require_second_factor: Names = Field(default=[])  # roles whose holders must have two factors
    gui_access_seconds: int = Field(default=300, ge=1, le=3600)  # the demo shows a token expire
    trusted_proxies: Names = Field(default=[])  # whose X-Forwarded-For says where a request comes from
    signing_key_days: int = Field(default=90, ge=1, le=3650)  # a new key is published so often
    sealing_key: str | None = Field(default=None, repr=False)  # of several machines with one database
    session_minutes: int = Field(default=720, ge=5, le=43_200)  # then people sign in again, whatever they do
    refresh_days: int = Field(default=30, ge=1, le=365)  # a refresh token that nobody used for so long is worth nothing
    refresh_grace_seconds: int = Field(default=10, ge=0, le=60)  # 0: no second use of a refresh token, ever
    client_registration: Literal["off", "token", "open"] = "off"  # may programs register themselves (RFC 7591)?
    unused_client_days: int = Field(
        default=30, ge=0, le=3650
    )  # then those of strangers without a grant go; 0: they stay
    client_documents: bool = False  # may a client be named by the URL of its metadata?
    outbound_networks: Names = Field(default=[])  # private networks that clients and providers may be in
    audit_retention_days: int | None = Field(default=None, ge=1)  # None: the audit is kept for good
    hash_threads: int | None = Field(default=None, ge=1)
    smtp_url: str | None = Field(default=None, repr=False)  # may hold a password; None: mails are files in DATA/mail
    mail_from: str | None = None  # None: no-reply at the issuer's host
    mail_new_devices: bool = True  # tell people when somebody signs in from a device they have not used before
    breached_passwords: Path | None = None  # SHA-1 hashes in order, as Have I Been Pwned publishes them

    @property
    def mails(self) -> Path:
        """The folder of mails where no mail server is named."""
        return self.data / "mail"

    def destinations(self, *, is_loopback: bool) -> Destinations:
        """Where requests to URLs that clients name may go; raises `SettingsRejected`."""
        try:
            own = tuple(ip_network(text) for text in self.outbound_networks)
        except ValueError as error:
            raise SettingsRejected(f"EVS_OUTBOUND_NETWORKS must be networks like 10.0.0.0/8: {error}") from error
        return Destinations((*own, *LOOPBACK) if is_loopback else own)

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
