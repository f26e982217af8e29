"""What the GUI has to be told, on top of what every member knows."""

from typing import Final
from urllib.parse import urlsplit

from lib_events.settings import Settings, SettingsRejected

CLIENT_ID: Final = "evs-gui"
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class GuiSettings(Settings):
    """Settings of the GUI, with what follows from its address."""

    @property
    def is_https(self) -> bool:
        return urlsplit(self.gui_url).scheme == "https"

    @property
    def cookie(self) -> str:
        """Cookies ignore ports, so the name carries it; https earns the strictest prefix."""
        return "__Host-evs-gui" if self.is_https else f"evs-gui-{urlsplit(self.gui_url).port or 80}"

    def check_address(self) -> None:
        """A cookie without `Secure` is for loopback only: any other http refuses to start."""
        parts = urlsplit(self.gui_url)
        if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS):
            return
        raise SettingsRejected(
            f"EVS_GUI_URL must be https, or http on a loopback address, got {self.gui_url}; "
            "put a TLS proxy in front and name its address"
        )
