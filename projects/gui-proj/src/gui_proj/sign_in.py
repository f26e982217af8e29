"""Signing in and out: steps 1 to 3 of the OAuth workflow, in the browser's and the server's part."""

import json
import re
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import httpx

from gui_proj import sealed
from gui_proj.app_service import AppServiceDown
from gui_proj.session import AuthServiceDown, Person
from lib_auth.client import OAuthClient, PendingAuthorization
from lib_auth.id_token import IdTokenRejected, verify_id_token
from lib_auth.jwks import KeySource, KeysUnavailable
from lib_auth.oauth_error import OAuthError, ResponseForged, ServerUnavailable
from lib_auth.protected_resource import fetch_resource_metadata, read_challenge
from lib_auth.tokens import TokenSet

SCOPE: Final = (
    "openid profile workflows:read workflows:run workflows:manage events:read events:publish approvals:decide"
)
PENDING_SECONDS: Final = 600
PURPOSE: Final = "evs-gui sign-in"
# Browsers read a backslash as a slash, and leave control characters out before they read an address.
LOCAL_PATH: Final = re.compile(r"/(?!/)[^\\\x00-\x1f]*")


class SignInFailed(Exception):
    """The sign-in did not come to an end; the text is for the person, who may begin again."""


@dataclass(frozen=True, slots=True)
class SignInBegun:
    """Where to send the browser, and the cookie that binds what comes back to it."""

    url: str
    state: str
    cookie: str


@dataclass(frozen=True, slots=True)
class SignInDone:
    person: Person
    tokens: TokenSet
    return_to: str


class SignIn:
    """The GUI as the OAuth client `evs-gui`."""

    def __init__(
        self, http: httpx.AsyncClient, client: OAuthClient, keys: KeySource, *, app_url: str, gui_url: str, key: bytes
    ) -> None:
        self.http = http
        self.client = client
        self.keys = keys
        self.app_url = app_url
        self.gui_url = gui_url
        self.key = key

    async def begin(self, return_to: str) -> SignInBegun:
        """Step 1: ask the AppService without a token and go where its 401 says."""
        await self._check_issuer()
        try:
            # Its metadata is long known, but nobody should be sent to a server that does not answer.
            await self.http.get(f"{self.client.issuer}/healthz")
            pending = await self.client.begin_authorization(
                redirect_uri=f"{self.gui_url}/callback", scope=SCOPE, resources=[self.app_url]
            )
        except (ServerUnavailable, httpx.HTTPError) as error:
            raise AuthServiceDown(str(error)) from error
        return SignInBegun(pending.url, pending.state, self._remember(pending, return_to))

    async def finish(self, answer: dict[str, str], cookie: str) -> SignInDone:
        """Step 3: exchange the code that came to the callback for tokens."""
        pending, return_to = self._recall(cookie)
        try:
            tokens = await self.client.finish_authorization(pending, answer, resource=self.app_url)
            claims = await verify_id_token(
                tokens.id_token or "",
                issuer=self.client.issuer,
                client_id=self.client.client_id,
                nonce=pending.nonce,
                keys=self.keys,
            )
            person = Person.of({**await self.client.introspect(tokens.access_token), **claims})
        except OAuthError as error:
            raise SignInFailed(refusal_words(error)) from error
        except (ResponseForged, IdTokenRejected) as error:
            raise SignInFailed("The answer did not belong to the sign-in this browser began.") from error
        except (ServerUnavailable, KeysUnavailable) as error:
            raise AuthServiceDown(str(error)) from error
        return SignInDone(person, tokens, return_to)

    async def _check_issuer(self) -> None:
        """RFC 9728: the resource's 401 names its metadata, the metadata names the authorization server."""
        try:
            answer = await self.http.get(f"{self.app_url}/v1/workflows")
        except httpx.HTTPError as error:
            raise AppServiceDown(str(error)) from error
        challenge = read_challenge(answer.headers.get("WWW-Authenticate", ""))
        address = challenge.get("resource_metadata", "")
        # The address comes from the network: only the AppService itself may say who signs people in for it.
        if answer.status_code != 401 or not address.startswith(f"{self.app_url}/"):
            raise AppServiceDown(f"{self.app_url} must answer 401 and name its metadata, got {answer.status_code}")
        try:
            metadata = await fetch_resource_metadata(self.http, address, resource=self.app_url)
        except ServerUnavailable as error:
            raise AppServiceDown(str(error)) from error
        servers = [str(each).rstrip("/") for each in metadata.get("authorization_servers") or ()]
        if self.client.issuer not in servers:
            raise SignInFailed(
                f"The AppService trusts {', '.join(servers) or 'nobody'}, this GUI is a client of "
                f"{self.client.issuer}; set EVS_AUTH_URL to the same address for both."
            )

    def _remember(self, pending: PendingAuthorization, return_to: str) -> str:
        kept = {"pending": asdict(pending) | {"url": ""}, "return_to": return_to, "at": time.time()}
        return sealed.to_text(sealed.seal(self.key, json.dumps(kept).encode(), purpose=PURPOSE))

    def _recall(self, cookie: str) -> tuple[PendingAuthorization, str]:
        plain = sealed.unseal(self.key, sealed.from_text(cookie), purpose=PURPOSE)
        kept: dict[str, Any] = json.loads(plain) if plain else {}
        if not kept or kept["at"] + PENDING_SECONDS < time.time():
            raise SignInFailed("The sign-in took longer than ten minutes, or began in another browser.")
        return PendingAuthorization(**kept["pending"]), local_path(kept["return_to"])


def refusal_words(error: OAuthError) -> str:
    if error.error == "access_denied":
        return "The sign-in was declined."
    if error.error == "invalid_grant":
        return "The sign-in had already been used or had run out."
    return f"The AuthService refused the sign-in: {error.description or error.error}."


def local_path(address: str) -> str:
    """The address if it is a path of ours, else the home page: never a way to somebody else's site."""
    return address if LOCAL_PATH.fullmatch(address) else "/"
