"""What the service may be told: flags, then `EVS_*` in the environment, then the settings file."""

from typing import Any

from pydantic import Field

from lib_events.settings import LOOPBACK, BaseUrl, Settings


def _own_url(data: dict[str, Any]) -> str:
    return f"http://{LOOPBACK}:{data['new_service_port']}"


class ServiceSettings(Settings):
    """Settings of new-service; the variable of a field is its name behind `EVS_`."""

    new_service_port: int = Field(default=8010, ge=0, le=65535)
    # The audience of our tokens: one that was issued for another service is refused here.
    new_service_url: BaseUrl = Field(default_factory=_own_url, validate_default=True)
    new_service_client_secret: str = Field(default="", repr=False)
