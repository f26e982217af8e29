"""As whom a command acts: a given token, a program's credentials, a person who signed in, this machine's user."""

from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import httpx

from cli_proj.config import Storage, load_config, state_folder
from cli_proj.context import LOCAL_CLIENT, Context
from lib_auth.client import OAuthClient
from lib_auth.sign_in import NotSignedIn, SignIn, bearer
from lib_auth.token_store import DEFAULT_RESOURCE, FileStore, KeyringStore, StoredTokens, StoreUnavailable, TokenStore
from lib_auth.tokens import TokenSet

CLI_CLIENT = "evs-cli"
APP_SCOPES = "workflows:read workflows:run workflows:manage events:read events:publish approvals:decide"
PERSON_SCOPES = f"openid profile offline_access {APP_SCOPES}"
ADMIN_SUFFIX = "-admin"


class Identity(Protocol):
    """Whoever can say which access token to send, and get another when that one is refused."""

    def access_token(self, resource: str = DEFAULT_RESOURCE) -> Awaitable[str]:
        """Return an access token that is valid now."""
        ...

    def renew(self, rejected: str, resource: str = DEFAULT_RESOURCE) -> Awaitable[str]:
        """Return another one than `rejected`."""
        ...

    def headers(self, token: str, method: str, url: str) -> dict[str, str]:
        """Return the headers that send a token with one request."""
        ...


class _Bearer:
    """Tokens that whoever has them can use."""

    def headers(self, token: str, method: str, url: str) -> dict[str, str]:  # noqa: ARG002 - the same for every request
        """Return the header."""
        return bearer(token)


class GivenToken(_Bearer):
    """A token somebody else got, in EVS_TOKEN; nobody here can renew it."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def access_token(self, resource: str = DEFAULT_RESOURCE) -> str:  # noqa: ARG002 - it is for what it is for
        """Return it."""
        return self._token

    async def renew(self, rejected: str, resource: str = DEFAULT_RESOURCE) -> str:  # noqa: ARG002
        """Refuse."""
        raise NotSignedIn("the token in EVS_TOKEN is refused: it has expired, or is for something else; set a new one")


class Program(_Bearer):
    """A program's own credentials; its token is kept between commands where there is a `store`."""

    def __init__(self, client: OAuthClient, *, store: TokenStore | None = None) -> None:
        self._client = client
        self._store = store
        self._tokens: dict[str, TokenSet] = {}

    async def access_token(self, resource: str = DEFAULT_RESOURCE) -> str:
        """Return a token that is valid for a while yet."""
        tokens = self._tokens.get(resource) or self._kept(resource)
        if tokens is None or tokens.expires_within(15):
            tokens = await self._fetch(resource)
        return tokens.access_token

    async def renew(self, rejected: str, resource: str = DEFAULT_RESOURCE) -> str:  # noqa: ARG002
        """Get a new one."""
        return (await self._fetch(resource)).access_token

    def _kept(self, resource: str) -> TokenSet | None:
        try:
            kept = self._store.load(LOCAL_CLIENT) if self._store else None
        except StoreUnavailable:
            return None  # it is only a cache
        return kept.access.get(resource) if kept and kept.issuer == self._client.issuer else None

    async def _fetch(self, resource: str) -> TokenSet:
        scope = "admin" if resource else APP_SCOPES  # the admin API is the only resource that is ever named
        tokens = await self._client.client_credentials(scope=scope, resource=resource or None)
        self._tokens[resource] = tokens
        if self._store is not None:
            kept = StoredTokens(self._client.issuer, self._client.client_id, refresh_token=None)
            with suppress(StoreUnavailable):  # a full disk must not keep anybody from looking what is wrong
                self._store.save(LOCAL_CLIENT, kept.with_tokens(tokens, resource=resource))
        return tokens


def identity_of(context: Context, http: httpx.AsyncClient, *, admin: bool = False) -> Identity:
    """Choose who acts in `context`; raises `NotSignedIn`. A sign-in for administration is kept apart."""
    if context.token is not None:
        return GivenToken(context.token)
    if context.client_id is not None and context.client_id != LOCAL_CLIENT:
        return Program(_program_client(context, http))
    if signed_in(context, admin=admin):
        return person(context, http, admin=admin)
    if context.client_id is not None and context.data is not None and not admin:
        return Program(_program_client(context, http), store=local_tokens(context.data))
    command = "evs auth login --admin" if admin else "evs auth login"
    raise NotSignedIn(f"nobody is signed in to {context.auth_url}; run: {command}")


def acts_as_program(context: Context) -> bool:
    """Whether no person acts in `context`, but a program: a given one, or this machine's own client."""
    return context.client_id is not None and (context.client_id != LOCAL_CLIENT or not signed_in(context))


def signed_in(context: Context, *, admin: bool = False) -> bool:
    """Whether a person has signed in from here."""
    return sign_in_name(context, admin=admin) in load_config().sign_ins


def person(context: Context, http: httpx.AsyncClient, *, admin: bool = False, storage: Storage | None = None) -> SignIn:
    """The person's sign-in, kept in `storage` (default: where it is)."""
    name = sign_in_name(context, admin=admin)
    kept_in = storage or load_config().sign_ins.get(name, "file")
    client = OAuthClient(context.auth_url, CLI_CLIENT, http=http)
    return SignIn(client, token_store(kept_in), context=name, locks=state_folder() / "locks")


def sign_in_name(context: Context, *, admin: bool = False) -> str:
    """Under which name a sign-in is kept."""
    return context.sign_in_name + (ADMIN_SUFFIX if admin else "")


def token_store(storage: Storage) -> TokenStore:
    """The keyring, or a folder of files only their owner can read."""
    return KeyringStore() if storage == "keyring" else FileStore(state_folder())


def local_tokens(data: Path) -> TokenStore:
    """Where the tokens of this machine's user are kept between commands."""
    return FileStore(data / "secrets")


def _program_client(context: Context, http: httpx.AsyncClient) -> OAuthClient:
    assert context.client_id is not None  # noqa: S101 - for the type checker
    return OAuthClient(context.auth_url, context.client_id, client_secret=context.client_secret, http=http)
