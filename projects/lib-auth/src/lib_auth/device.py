"""Sign-in where there is no browser: the person confirms a code on another device (RFC 8628)."""

from collections.abc import Callable, Iterable

from lib_auth.client import DeviceAuthorization, OAuthClient
from lib_auth.tokens import TokenSet


async def sign_in(
    client: OAuthClient,
    *,
    scope: str,
    show: Callable[[DeviceAuthorization], None],
    resources: Iterable[str] = (),
    resource: str | None = None,
) -> TokenSet:
    """Show the person where to go and which code to compare, then wait until they have decided.

    Raises `OAuthError` `access_denied` or `expired_token`, and `ServerUnavailable`.
    """
    authorization = await client.device_authorization(scope=scope, resources=resources)
    show(authorization)
    return await client.poll_device(authorization, resource=resource)
