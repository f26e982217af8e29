"""Signs a person in from a terminal: where the tokens go, which way, and what the person reads."""

import asyncio
import threading
from typing import TYPE_CHECKING, Literal

from cli_proj import browser
from cli_proj.config import Storage, load_config, save_config
from cli_proj.context import Context
from cli_proj.failure import not_allowed
from cli_proj.http_client import new_http
from cli_proj.identity import CLI_CLIENT, PERSON_SCOPES, person, sign_in_name
from cli_proj.messages import BOLD, CYAN, ask, is_interactive, message, printable, styled
from lib_auth import device, loopback
from lib_auth.client import DeviceAuthorization, OAuthClient
from lib_auth.token_store import keyring_is_usable

if TYPE_CHECKING:
    from lib_auth.proof_key import ProofKey

type Way = Literal["web", "device"]

ADMIN_SCOPES = "openid profile offline_access admin"


async def choose_storage(*, insecure: bool) -> Storage:
    """Decide before anybody signs in where tokens will be kept; never plain files without being asked for."""
    if insecure:
        return "file"
    if await asyncio.to_thread(keyring_is_usable):
        return "keyring"
    if "file" in load_config().sign_ins.values():
        return "file"  # the person has agreed to it before
    if is_interactive():
        message("This machine has no keyring. The sign-in can be kept in a file that only you can read (0600).")
        if ask("Keep it in a file? [y/N]").lower() in ("y", "yes"):
            return "file"
    raise not_allowed(
        "there is no keyring to keep the sign-in in",
        hint="evs auth login --insecure-storage keeps it in a file only you can read; "
        "programs use EVS_TOKEN, or EVS_CLIENT_ID and EVS_CLIENT_SECRET",
    )


async def sign_in_person(
    context: Context, *, storage: Storage, way: Way | None = None, admin: bool = False, dpop: bool = False
) -> str:
    """Sign in and keep the tokens, with `dpop` bound to a key that is kept beside them; returns who it is."""
    scope = ADMIN_SCOPES if admin else PERSON_SCOPES
    resource = context.admin_resource if admin else context.app_url
    async with new_http(context) as http:
        key = _new_key() if dpop else None
        client = OAuthClient(context.auth_url, CLI_CLIENT, http=http, proof_key=key)
        if (way or default_way()) == "device":
            tokens = await device.sign_in(client, scope=scope, show=_show_code, resources=[resource], resource=resource)
        else:
            tokens = await loopback.sign_in(
                client, scope=scope, open_browser=_open_browser, resources=[resource], resource=resource
            )
        kept_as = resource if admin else ""
        await person(context, http, admin=admin, storage=storage).keep(tokens, resource=kept_as, proof_key=key)
        save_config(load_config().with_sign_in(sign_in_name(context, admin=admin), storage))
        return await _name_of(client, tokens.access_token)


def _new_key() -> "ProofKey":
    from lib_auth.proof_key import ProofKey  # noqa: PLC0415 - few sign-ins need cryptography

    return ProofKey.generate()


def default_way() -> Way:
    """The browser, unless it would open on a machine where nobody sits."""
    return "web" if browser.is_here() else "device"


async def _name_of(client: OAuthClient, access_token: str) -> str:
    from lib_auth.oauth_error import OAuthError, ServerUnavailable  # noqa: PLC0415

    try:
        claims = await client.userinfo(access_token)
    except (OAuthError, ServerUnavailable):
        return "you"  # signed in all the same
    return str(claims.get("preferred_username") or claims.get("sub"))


def _open_browser(url: str) -> None:
    message("Sign in with your browser. If it does not open, go to:")
    message(f"  {styled(printable(url), CYAN)}")
    # Some browsers stay where they were started until they are closed: they could not bring us the answer meanwhile.
    threading.Thread(target=browser.show, args=(url,), daemon=True).start()


def _show_code(authorization: DeviceAuthorization) -> None:
    message("On any device, go to")
    message(f"  {styled(printable(authorization.verification_uri_complete), CYAN)}")
    message(f"and confirm that it shows this code:  {styled(printable(authorization.user_code), BOLD)}")
    message(f"Waiting; the code is good for {authorization.expires_in // 60} minutes.")
