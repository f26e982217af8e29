"""Every route of the AuthService that is not a REST resource, as one table."""

from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from auth_svc.endpoints import (
    authorize,
    discovery,
    logout,
    pushed_authorization,
    revocation_feed,
    token,
    token_status,
    userinfo,
)
from auth_svc.endpoints import registration as client_registration
from auth_svc.site import (
    account,
    apps,
    connect,
    delegations,
    device,
    devices,
    own_data,
    passkeys,
    recovery,
    registration,
    second_factor,
    security,
    sign_in,
    step_up,
    upstream,
    verification,
)
from auth_svc.site.browser import redirect
from lib_events.http.wire import Endpoint

STATIC = Path(__file__).parent / "static"


async def _home(_request: Request) -> Response:
    return redirect("/account")


def _static(name: str, media_type: str) -> Endpoint:
    async def serve(_request: Request) -> Response:
        headers = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}
        return FileResponse(STATIC / name, media_type=media_type, headers=headers)

    return serve


TABLE: tuple[tuple[str, str, Endpoint], ...] = (
    # discovery
    ("GET", "/.well-known/openid-configuration", discovery.metadata),
    ("GET", "/.well-known/oauth-authorization-server", discovery.metadata),
    ("GET", "/.well-known/oauth-protected-resource/v1/admin", discovery.admin_resource),
    ("GET", "/oauth2/jwks", discovery.jwks),
    ("GET", "/asyncapi.json", discovery.asyncapi),
    # protocol
    ("GET", "/oauth2/authorize", authorize.authorize),
    ("POST", "/oauth2/authorize", authorize.authorize),
    ("POST", "/oauth2/par", pushed_authorization.push),
    ("POST", "/oauth2/token", token.token),
    ("POST", "/oauth2/device_authorization", token.device_authorization),
    ("POST", "/oauth2/revoke", token_status.revoke),
    ("POST", "/oauth2/introspect", token_status.introspect),
    ("GET", "/oauth2/userinfo", userinfo.userinfo),
    ("POST", "/oauth2/userinfo", userinfo.userinfo),
    ("GET", "/oauth2/logout", logout.logout),
    ("POST", "/oauth2/logout", logout.logout),
    ("POST", "/oauth2/register", client_registration.register),
    ("GET", "/oauth2/register/{client_id}", client_registration.read),
    ("PUT", "/oauth2/register/{client_id}", client_registration.change),
    ("DELETE", "/oauth2/register/{client_id}", client_registration.remove),
    ("GET", "/v1/revocations", revocation_feed.revocation_feed),
    # pages
    ("GET", "/", _home),
    ("GET", "/login", sign_in.sign_in_form),
    ("POST", "/login", sign_in.sign_in),
    ("GET", "/login/second", second_factor.second_factor_form),
    ("POST", "/login/second", second_factor.second_factor),
    ("GET", "/login/step-up", step_up.step_up),
    ("POST", "/login/second/passkey", passkeys.second_step),
    ("POST", "/login/passkey", passkeys.sign_in_with_passkey),
    ("GET", "/login/connect", connect.connect_form),
    ("POST", "/login/connect", connect.connect),
    ("POST", "/login/connect/new", connect.make_account),
    ("GET", "/login/upstream/{upstream}", upstream.leave),
    ("GET", "/login/upstream/{upstream}/callback", upstream.arrive),
    ("GET", "/register", registration.registration_form),
    ("POST", "/register", registration.register),
    ("POST", "/consent", authorize.consent),
    ("GET", "/device", device.device_form),
    ("POST", "/device", device.device),
    ("GET", "/account", account.account),
    ("POST", "/account/name", account.change_name),
    ("POST", "/account/email", account.change_email),
    ("POST", "/account/password", account.change_password),
    ("POST", "/account/sign-out", account.sign_out),
    ("GET", "/account/sessions", devices.devices),
    ("POST", "/account/end-session", devices.end_session),
    ("POST", "/account/end-other-sessions", devices.end_other_sessions),
    ("GET", "/account/apps", apps.apps),
    ("POST", "/account/apps/withdraw", apps.withdraw),
    ("GET", "/account/apps/allow", delegations.allow_form),
    ("POST", "/account/apps/allow", delegations.allow),
    ("POST", "/account/apps/end-delegation", delegations.end_delegation),
    ("GET", "/account/data", own_data.own_data),
    ("GET", "/account/data/export", own_data.export),
    ("POST", "/account/delete", own_data.delete),
    ("GET", "/verify-email", verification.verification_form),
    ("POST", "/verify-email", verification.verify),
    ("GET", "/recover", recovery.recovery_form),
    ("POST", "/recover", recovery.ask),
    ("GET", "/recover/new-password", recovery.new_password_form),
    ("POST", "/recover/new-password", recovery.set_new_password),
    ("GET", "/account/security", security.security),
    ("POST", "/account/security/app", security.set_up_app),
    ("GET", "/account/security/app", security.app_form),
    ("POST", "/account/security/app/confirm", security.confirm_app),
    ("POST", "/account/security/app/remove", security.remove_app),
    ("POST", "/account/security/recovery-codes", security.renew_recovery_codes),
    ("POST", "/account/security/passkeys", passkeys.add),
    ("POST", "/account/security/passkeys/remove", passkeys.remove),
    ("POST", "/account/security/upstreams/disconnect", upstream.disconnect),
    ("POST", "/account/security/upstreams/{upstream}", upstream.connect),
    ("GET", "/static/passkeys.js", _static("passkeys.js", "text/javascript")),
    ("GET", "/static/send_form.js", _static("send_form.js", "text/javascript")),
    ("GET", "/static/auth.css", _static("auth.css", "text/css")),
    ("GET", "/static/icon.svg", _static("icon.svg", "image/svg+xml")),
)


def fixed_endpoints() -> Mapping[str, Mapping[str, Endpoint]]:
    """Return the endpoints of paths without parameters, by path and method."""
    return {path: methods for path, methods in _by_path().items() if "{" not in path}


def routes() -> list[Route]:
    """Return the table as routes; methods of one path share a route, so that 405 names them all."""
    return [Route(path, _dispatch(methods), methods=list(methods)) for path, methods in _by_path().items()]


def _by_path() -> Mapping[str, Mapping[str, Endpoint]]:
    by_path: dict[str, dict[str, Endpoint]] = {}
    for method, path, endpoint in TABLE:
        by_path.setdefault(path, {})[method] = endpoint
    return by_path


def _dispatch(methods: Mapping[str, Endpoint]) -> Endpoint:
    async def answer(request: Request) -> Response:
        if "\0" in request.url.path:
            raise HTTPException(404)  # no row has such a name: PostgreSQL keeps no such texts
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return answer
