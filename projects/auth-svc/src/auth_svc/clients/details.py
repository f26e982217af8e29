"""What a client says of itself for people to see, and what it wants of a sign-in and its tokens."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST_AGE_SECONDS = 999_999_999  # of as many digits as `max_age` may have

type Page = Annotated[str, Field(max_length=2_000, pattern=r"^(?:https://|$)")]  # an empty one says nothing


class ClientDetails(BaseModel):
    """Members that are kept and told again as they are (RFC 7591 section 2, OpenID Registration section 2)."""

    model_config = ConfigDict(extra="forbid")

    client_uri: Page | None = None
    logo_uri: Page | None = None
    policy_uri: Page | None = None
    tos_uri: Page | None = None
    contacts: list[Annotated[str, Field(max_length=254)]] = Field(default=[], max_length=10)
    software_id: str | None = Field(default=None, max_length=200)
    software_version: str | None = Field(default=None, max_length=200)
    application_type: Literal["web", "native"] | None = None
    default_acr_values: list[Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\S+$")]] = Field(
        default=[], max_length=10
    )  # any of these levels, where its request asks for none
    require_auth_time: bool = False  # every ID token says when people signed in
    backchannel_logout_session_required: bool = False  # every logout token says which session ended

    @model_validator(mode="before")
    @classmethod
    def _without_nul(cls, given: Any) -> Any:
        if "\\u0000" in json.dumps(given):
            raise ValueError("texts must not contain NUL")
        return given


def told(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of details: those that say something."""
    return {name: value for name, value in details.items() if value}
