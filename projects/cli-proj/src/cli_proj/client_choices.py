"""What may be chosen of a client, as options that making one and changing one share, and as the members of the API."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from cli_proj.failure import not_found, usage

# The members of the API whose options are called otherwise.
MEMBERS: Final = {
    "redirect_uri": "redirect_uris",
    "post_logout_redirect_uri": "post_logout_redirect_uris",
    "grant": "grant_types",
    "scope": "scopes",
    "role": "roles",
    "token_seconds": "access_token_seconds",
    "id_token_alg": "id_token_algorithm",
    "dpop": "dpop_bound",
    "contact": "contacts",
    "default_acr": "default_acr_values",
    "logout_session_required": "backchannel_logout_session_required",
}
DETAILS: Final = (
    *("client_uri", "logo_uri", "policy_uri", "tos_uri", "contact", "software_id", "software_version"),
    *("application_type", "default_acr", "require_auth_time", "logout_session_required"),
)


def scopes_of(texts: Sequence[str]) -> list[str]:
    """Scopes one by one, also where several are given as one text, as OAuth writes them (RFC 6749 section 3.3)."""
    return [word for text in texts for word in text.split()]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class ClientChoices:
    """What is left out is as before, or as the AuthService has it by default; an empty text takes something away."""

    name: str | None = None
    "What people call it (default: the id)."
    redirect_uri: tuple[str, ...] | None = None
    "Where people come back to; all of them. May be repeated."
    post_logout_redirect_uri: tuple[str, ...] | None = None
    "Where people come to who signed out; all of them. May be repeated."
    grant: tuple[str, ...] | None = None
    "A grant it may use; all of them (default: authorization_code and refresh_token). May be repeated."
    scope: tuple[str, ...] | None = None
    "A scope it may ask for; all of them (default: openid and profile). May be repeated."
    role: tuple[str, ...] | None = None
    "What it may do for itself, with client_credentials; all of them. May be repeated."
    consent: Literal["never", "once", "always"] | None = None
    "Whether people are asked."
    token_seconds: int | None = None
    "How long its access tokens live."
    auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] | None = None
    "How it proves itself; who gets a secret by that is told it, once."
    jwks: Path | None = None
    "A file with its public keys, a JWK set: it proves itself with a key instead of a secret."
    jwks_uri: str | None = None
    "Where its public keys are: it proves itself with a key instead of a secret."
    id_token_alg: Literal["ES256", "RS256"] | None = None
    "What its ID tokens are signed with (default: RS256, which every OpenID library expects that was told nothing)."
    default_max_age: int | Literal["none"] | None = None
    "How many seconds old a sign-in may be unless it asks otherwise; none for as old as it is."
    dpop: Annotated[bool | None, Parameter(negative="--no-dpop")] = None
    "Its tokens are bound to a key (DPoP), always."
    pushed_only: Annotated[bool | None, Parameter(negative="--no-pushed-only")] = None
    "It says what it wants before it sends the browser (RFC 9126), always."
    logout_uri: str | None = None
    "Where it wants to hear that people signed out (OpenID Connect Back-Channel Logout)."
    client_uri: str | None = None
    "Its home page."
    logo_uri: str | None = None
    "Its logo."
    policy_uri: str | None = None
    "What it does with people's data."
    tos_uri: str | None = None
    "Its terms of service."
    contact: tuple[str, ...] | None = None
    "Who answers for it; all of them. May be repeated."
    software_id: str | None = None
    "What program it is."
    software_version: str | None = None
    "Which version of it."
    application_type: Literal["web", "native"] | None = None
    "Where it runs."
    default_acr: tuple[str, ...] | None = None
    "A level of sign-in that will do, unless it asks otherwise; all of them. May be repeated."
    require_auth_time: Annotated[bool | None, Parameter(negative="--no-require-auth-time")] = None
    "It needs to know when people signed in, which every ID token says."
    logout_session_required: Annotated[bool | None, Parameter(negative="--no-logout-session-required")] = None
    "It needs to know which session ended, which every logout token says."

    def members(self) -> dict[str, Any]:
        """Return the members of the API that were chosen; raises a `CommandFailed` for keys that cannot be read."""
        chosen = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        told = {MEMBERS.get(name, name): _plain(value) for name, value in chosen.items() if name not in DETAILS}
        if self.scope is not None:
            told["scopes"] = scopes_of(self.scope)
        if self.default_max_age == "none":
            told["default_max_age"] = None
        if self.jwks is not None:
            told["jwks"] = _key_set(self.jwks)
        if details := {MEMBERS.get(name, name): _plain(chosen[name]) for name in DETAILS if name in chosen}:
            told["details"] = details
        return told


def _plain(value: object) -> object:
    """An empty text takes away what is there."""
    if isinstance(value, tuple):
        return [each for each in value if each]
    return None if value == "" else value


def _key_set(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError as error:
        raise not_found(f"there is no file {file}") from error
    except (OSError, ValueError) as error:
        raise usage(f"{file} must be a JWK set, in JSON: {error}") from error
