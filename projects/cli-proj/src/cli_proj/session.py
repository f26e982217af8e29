"""What a command with a network needs: the context, somebody to act as, the services, the output."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx

from cli_proj.api import Service
from cli_proj.context import Context, resolve_context
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed, not_allowed
from cli_proj.http_client import new_http
from cli_proj.identity import Identity, identity_of
from cli_proj.options import Options
from cli_proj.output import Output
from lib_auth.loopback import SignInTimeout
from lib_auth.oauth_error import OAuthError, ResponseForged, ServerUnavailable
from lib_auth.sign_in import NotSignedIn
from lib_auth.token_store import StoreUnavailable


@dataclass(frozen=True, slots=True)
class Session:
    """One command's view of a product."""

    context: Context
    app: Service
    auth: Service
    output: Output


@dataclass(frozen=True, slots=True)
class Acting:
    """Somebody in a context, without any service yet."""

    context: Context
    http: httpx.AsyncClient
    identity: Identity


@asynccontextmanager
async def acting(options: Options, *, admin: bool = False) -> AsyncIterator[Acting]:
    """Find out who acts in the context; what goes wrong with signing in becomes exit code 4."""
    with signing_in_failures():
        context = resolve_context(options.context)
        async with new_http(context) as http:
            yield Acting(context, http, identity_of(context, http, admin=admin))


@asynccontextmanager
async def connected(options: Options) -> AsyncIterator[Session]:
    """Open a session as whoever acts in the context."""
    async with acting(options) as who:
        app = Service("AppService", who.context.app_url, http=who.http, identity=who.identity)
        auth = Service("AuthService", who.context.auth_url, http=who.http, identity=who.identity)
        yield Session(who.context, app, auth, Output(options.output))


@contextmanager
def signing_in_failures() -> Iterator[None]:
    """Turn what goes wrong around tokens into a failure of the command."""
    try:
        yield
    except NotSignedIn as error:
        text, _, command = str(error).partition("; run: ")
        raise not_allowed(text, hint=command or None) from error
    except OAuthError as error:
        raise not_allowed(
            f"the AuthService refuses: {error.description or error.error}", hint="evs auth login"
        ) from error
    except (ResponseForged, StoreUnavailable) as error:
        raise not_allowed(str(error)) from error
    except SignInTimeout as error:
        raise CommandFailed(str(error), hint="evs auth login", code=ExitCode.TIMEOUT) from error
    except ServerUnavailable as error:
        raise CommandFailed(str(error), hint="evs status says what runs; evs up starts it") from error
