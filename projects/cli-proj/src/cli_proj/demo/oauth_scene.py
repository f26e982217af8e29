"""The OAuth workflow in its five steps, through the real pages of the GUI and the AuthService."""

import time

from cli_proj.demo.evidence import grown, read_counts
from cli_proj.demo.stage import Stage, eventually, expect, expect_form

LIST = "/v1/runs"
TOKEN = "/oauth2/token"  # noqa: S105 - a path
SHOWN_CODE = 8


async def show_oauth(stage: Stage) -> None:
    """Play the five steps; raises `DemoFailed`."""
    await _called_without_token(stage)
    callback = await _sent_to_sign_in(stage)
    await _code_for_tokens(stage, callback)
    await _called_with_token(stage)
    await _expired_and_refreshed(stage)


async def register(stage: Stage) -> None:
    """Make the person an account on the AuthService's own page."""
    page = await stage.admin_browser.open(f"{stage.auth_url}/register")
    values = {"username": stage.person.username, "password": stage.person.password}
    page = await stage.admin_browser.submit(page, expect_form(page, "/register"), values)
    expect(stage.person.username in page.text, f"the account must have been made, got: {page.text[:200]}")
    await stage.admin_browser.submit(page, expect_form(page, "/account/sign-out"), {})
    stage.screen.step(f"{stage.person.username} makes an account", f"{stage.auth_url}/register")


async def _called_without_token(stage: Stage) -> None:
    answer = await stage.http.get(stage.app_url + LIST)
    challenge = answer.headers.get("www-authenticate", "")
    expect(answer.status_code == 401, f"the AppService must answer 401 without a token, got {answer.status_code}")
    expect("resource_metadata=" in challenge, f"the 401 must say where to authenticate, got {challenge!r}")
    stage.screen.step(
        "1  The AppService is called without a token: 401, and where to authenticate",
        f"GET {LIST} → 401",
        f"WWW-Authenticate: {challenge}",
    )


async def _sent_to_sign_in(stage: Stage) -> str:
    browser, person = stage.browser, stage.person
    page = await browser.open(f"{stage.gui_url}/runs")
    authorize = browser.hop("/oauth2/authorize")
    values = {"username": person.username, "password": person.password}
    await browser.submit(page, expect_form(page, "/login"), values, stop_at="/callback")
    callback = browser.hop("/callback")
    code = callback.params.get("code", "")
    expect(code, f"the AuthService must answer with a code, got {callback.params}")
    stage.screen.step(
        f"2  The GUI sends {person.username} to the AuthService, which checks the password and returns a code",
        f"GET {stage.gui_url}/runs → 303 → {authorize.copy_with(query=None)}",
        f"    client_id={authorize.params['client_id']}, PKCE {authorize.params['code_challenge_method']}",
        f"POST {stage.auth_url}/login → 303 → {callback.copy_with(query=None)}?code={code[:SHOWN_CODE]}…",
    )
    return str(callback)


async def _code_for_tokens(stage: Stage, callback: str) -> None:
    before = await read_counts(stage.http, stage.auth_url)
    page = await stage.browser.open(callback)
    after = await read_counts(stage.http, stage.auth_url)
    exchanged = grown(before, after, method="POST", status=200)
    expect(exchanged, "the GUI must exchange the code for tokens, the AuthService counted no request")
    expect(stage.person.username in page.text, f"the GUI must know who signed in, got: {page.text[:200]}")
    stage.screen.step(
        "3  The GUI exchanges the code for an access token (JWT) and a refresh token",
        f"AuthService: POST {TOKEN} → 200, asked by the GUI's server: the tokens never reach the browser",
        f"browser: {page.url}, signed in as {stage.person.username}",
    )


async def _called_with_token(stage: Stage) -> None:
    before = await read_counts(stage.http, stage.app_url)
    page = await stage.browser.open(f"{stage.gui_url}/runs")
    after = await read_counts(stage.http, stage.app_url)
    served = grown(before, after, route=LIST, status=200)
    expect(page.status == 200 and served, f"the GUI must show the AppService's answer, got {page.status}")
    stage.screen.step(
        "4  The GUI calls the AppService with the JWT, which is checked by the AuthService's public keys",
        f"AppService: GET {LIST} → 200, {served} counted; browser: “{page.title}”",
    )


async def _expired_and_refreshed(stage: Stage) -> None:
    stage.screen.note("  the token lives two seconds here; waiting until the AppService refuses it …")
    app_before = await read_counts(stage.http, stage.app_url)
    auth_before = await read_counts(stage.http, stage.auth_url)
    began = time.monotonic()

    async def refused() -> bool | None:
        page = await stage.browser.open(f"{stage.gui_url}/runs")
        expect(page.status == 200, f"the GUI must carry on with a new token, got {page.status}: {page.text[:200]}")
        counts = await read_counts(stage.http, stage.app_url)
        return True if grown(app_before, counts, status=401) else None

    await eventually(refused, "the expiry of the token")
    auth_after = await read_counts(stage.http, stage.auth_url)
    refreshed = grown(auth_before, auth_after, method="POST", status=200)
    expect(refreshed, "the GUI must have used its refresh token, the AuthService counted none")
    stage.screen.step(
        f"5  {time.monotonic() - began:.1f} s later the JWT has expired: 401, refresh, 200; the person noticed nothing",
        f"AppService: GET → 401; AuthService: POST {TOKEN} → 200; AppService: GET {LIST} → 200",
    )
