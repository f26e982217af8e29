"""`evs auth`: sign in and out, ask for a role."""

import base64
import json
import sys
from collections.abc import Mapping
from time import time
from typing import Any

from cyclopts import App

from cli_proj import moments
from cli_proj.column import Item
from cli_proj.config import load_config, save_config
from cli_proj.context import LOCAL_CLIENT, Context, resolve_context
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import not_allowed, usage
from cli_proj.http_client import new_http
from cli_proj.identity import person, sign_in_name, signed_in
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import print_fields, write
from cli_proj.session import acting, connected, signing_in_failures
from cli_proj.signing_in import Way, choose_storage, sign_in_person
from lib_auth.oauth_error import OAuthError, ServerUnavailable

app = App(name="auth")


@app.command
async def login(
    *,
    web: bool = False,
    device: bool = False,
    admin: bool = False,
    insecure_storage: bool = False,
    dpop: bool = False,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Sign in as a person: with the browser of this machine, or with a code on another device.

    Parameters
    ----------
    web
        Use the browser of this machine (default where there is one).
    device
        Show a code to confirm on another device (default over SSH).
    admin
        Sign in for administration: evs admin needs it.
    insecure_storage
        Where there is no keyring, keep the sign-in in a file only you can read.
    dpop
        Bind the tokens to a key that is kept beside them: a token alone is worth nothing then (RFC 9449).
    """
    if web and device:
        raise usage("--web and --device must not be used together; choose one")
    with signing_in_failures():
        context = resolve_context(options.context)
        storage = await choose_storage(insecure=insecure_storage)
        way: Way | None = "web" if web else "device" if device else None
        who = await sign_in_person(context, storage=storage, way=way, admin=admin, dpop=dpop)
    message(f"signed in to {context.auth_url} as {printable(who)}")


@app.command
async def status(*, options: Options = Options()) -> int:  # noqa: B008
    """Say who you are for the services; exit code 4 when nobody is signed in."""
    async with acting(options) as who:
        claims = claims_of(await who.identity.access_token())
        if not claims:
            raise not_allowed("the token in EVS_TOKEN must be a JWT of the AuthService, got something else")
        Output(options.output).item(_describe(who.context, claims), _show_status)
    return ExitCode.OK


@app.command
async def token(
    *,
    admin: bool = False,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Print an access token, for programs such as curl; it is secret and lasts minutes.

    Parameters
    ----------
    admin
        One for the admin API instead of the AppService.
    """
    async with acting(options, admin=admin) as who:
        resource = who.context.admin_resource if admin else ""
        text = await who.identity.access_token(resource)
        if "cnf" in claims_of(text):
            raise not_allowed(
                "the tokens of this sign-in are bound to a key, so nobody else can use them",
                hint="evs auth login without --dpop signs in again, for tokens that programs such as curl can use",
            )
        write(text + "\n")


@app.command
async def logout(*, options: Options = Options()) -> None:  # noqa: B008
    """End the sign-in, here and at the AuthService."""
    context = resolve_context(options.context)
    ended = False
    with signing_in_failures():
        for admin in (False, True):
            if signed_in(context, admin=admin):
                await _sign_out(context, admin=admin)
                ended = True
    message(f"signed out of {context.auth_url}" if ended else f"nobody was signed in to {context.auth_url}")


@app.command
async def request_role(role: str, /, *, reason: str | None = None, options: Options = Options()) -> None:  # noqa: B008
    """Ask for a role; somebody who may decides. The next token carries it.

    Parameters
    ----------
    role
        Which one, such as operator.
    reason
        Why.
    """
    async with connected(options) as session:
        body = {"role": role, "reason": reason or "asked for from the command line"}
        request = await session.auth.post("/v1/access-requests", body)
        session.output.item(request, _show_request)


async def _sign_out(context: Context, *, admin: bool) -> None:
    async with new_http(context) as http:
        try:
            await person(context, http, admin=admin).sign_out()
        except (OAuthError, ServerUnavailable) as error:
            message(f"forgotten here, but the AuthService could not be told: {printable(error)}")
        # Not before: what could not be deleted would be there still, and no second logout would look for it.
        save_config(load_config().with_sign_in(sign_in_name(context, admin=admin), None))


def claims_of(token: str) -> dict[str, Any]:
    """Read what a JWT says about itself; nothing is verified, because nothing is decided by it."""
    try:
        payload = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims


def _describe(context: Context, claims: Mapping[str, Any]) -> Item:
    return {
        "context": context.name,
        "issuer": context.auth_url,
        "user": claims.get("username") or claims.get("preferred_username") or claims.get("sub"),
        "client": claims.get("client_id"),
        "roles": claims.get("roles", []),
        "scopes": str(claims.get("scope", "")).split(),
        "expires_at": claims.get("exp"),
        "renewable": context.token is None,
        "bound": "cnf" in claims,
    }


def _show_status(status: Item) -> None:
    name = printable(status["user"])
    if status["client"] == LOCAL_CLIENT:
        name = f"{LOCAL_CLIENT}, this machine's own client (evs auth login signs in a person)"
    print_fields(
        (
            ("context", f"{status['context']} ({status['issuer']})"),
            ("you are", name),
            ("roles", status["roles"]),
            ("scopes", status["scopes"]),
            ("token", _lifetime(status["expires_at"], renewable=status["renewable"])),
            ("bound", "to a key kept beside it (DPoP)" if status["bound"] else None),
        )
    )


def _lifetime(expires_at: float | None, *, renewable: bool) -> str:
    left = (expires_at or 0) - time()
    if left <= 0:
        return "has expired"
    return f"valid for {moments.brief(left)}, {'renewed by itself' if renewable else 'not renewed: it is given'}"


def _show_request(request: Item) -> None:
    write(f"{printable(request['id'])} {request['status']}\n")
    if sys.stderr.isatty():
        message("somebody with the right role decides: evs approval list")
