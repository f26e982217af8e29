"""The OAuth workflow's five steps, one by one, with a real browser; and its equivalents in a terminal."""

import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from .conftest import ADMIN_PASSWORD, fill_in_sign_in, running_product, sign_in_on_loopback, wait_for

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory):
    """A product whose GUI gets tokens that live two seconds."""
    with running_product(tmp_path_factory.mktemp("short"), EVS_GUI_ACCESS_SECONDS="2") as running:
        yield running


def refused(product):
    """How many requests the AppService has answered with 401."""
    text = httpx.get(f"{product.app_url}/metrics").text
    return sum(
        float(value) for value in re.findall(r'^evs_http_requests_total\{.*status="401"\} (\S+)$', text, re.MULTILINE)
    )


def test_the_five_steps_of_the_oauth_workflow(short_lived, page):
    # 1. The GUI calls the AppService without a token; the AppService says where to authenticate.
    answer = httpx.get(f"{short_lived.app_url}/v1/workflows")
    assert answer.status_code == 401
    metadata_url = re.search(r'resource_metadata="([^"]+)"', answer.headers["www-authenticate"])[1]
    metadata = httpx.get(metadata_url).json()
    assert metadata["resource"] == short_lived.app_url
    assert metadata["authorization_servers"] == [short_lived.auth_url]
    before = refused(short_lived)

    # 2. The GUI sends the person to the AuthService, which checks the password and returns a code.
    visited = []
    page.on("request", lambda request: visited.append(request.url) if request.is_navigation_request() else None)
    page.goto(short_lived.gui_url)
    assert refused(short_lived) > before  # the GUI itself asked, and was told
    assert page.url.startswith(f"{short_lived.auth_url}/login")
    asked = parse_qs(urlsplit(next(url for url in visited if "/oauth2/authorize?" in url)).query)
    assert asked["response_type"] == ["code"]
    assert asked["code_challenge_method"] == ["S256"]
    fill_in_sign_in(page, "admin", "not the password")
    assert page.get_by_role("alert").is_visible()
    fill_in_sign_in(page, "admin", ADMIN_PASSWORD)
    page.wait_for_url(f"{short_lived.gui_url}/**")
    answered = parse_qs(urlsplit(next(url for url in visited if "/callback?" in url)).query)
    assert answered["code"]
    assert answered["iss"] == [short_lived.auth_url]

    # 3. The GUI exchanged the code; the browser has a cookie it cannot read, and no token.
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies(short_lived.gui_url)}
    session = cookies[f"evs-gui-{urlsplit(short_lived.gui_url).port}"]
    assert session["httpOnly"]
    assert session["sameSite"] == "Lax"
    assert "eyJ" not in page.content() + session["value"]
    assert page.evaluate("() => JSON.stringify([localStorage, sessionStorage, document.cookie])").count("eyJ") == 0

    # 4. The GUI calls the AppService with the JWT, and the AppService answers.
    page.goto(f"{short_lived.gui_url}/workflows")
    assert page.get_by_role("link", name="import-table").first.is_visible()

    # 5. The JWT expires; the AppService answers 401; the GUI renews it once and carries on.
    before = refused(short_lived)

    def token_had_expired():
        page.goto(f"{short_lived.gui_url}/runs")
        assert page.get_by_role("heading", name="Runs").is_visible()
        return refused(short_lived) > before

    wait_for(token_had_expired)
    assert page.url == f"{short_lived.gui_url}/runs"


def test_signing_out_ends_the_session_at_the_auth_service_too(product, page):
    page.goto(product.gui_url)
    fill_in_sign_in(page, "admin", ADMIN_PASSWORD)
    page.wait_for_url(f"{product.gui_url}/**")
    page.get_by_role("button", name="Sign out").first.click()
    page.get_by_role("heading", name="Signed out").wait_for()
    page.goto(f"{product.gui_url}/runs")
    assert page.url.startswith(f"{product.auth_url}/login")


def test_a_terminal_signs_in_on_loopback_with_pkce(product, browser):
    url = sign_in_on_loopback(product, browser, "admin", ADMIN_PASSWORD)
    asked = parse_qs(urlsplit(url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", asked["redirect_uri"][0])
    status = product.evs_json("auth", "status")
    assert status["user"] == "admin"
    assert "admin" in status["roles"]
    product.evs("auth", "logout")
    assert product.evs_json("auth", "status")["client"] == "evs-local"


def test_a_terminal_without_a_browser_signs_in_with_a_device_code(product, page):
    with product.start_evs("auth", "login", "--device", "--insecure-storage") as process:
        url = next(line.strip() for line in process.stderr if "/device?user_code=" in line)
        code = parse_qs(urlsplit(url).query)["user_code"][0]
        page.goto(url)
        fill_in_sign_in(page, "admin", ADMIN_PASSWORD)
        # RFC 8628 section 5.4: the person compares the code and confirms, even when the link carried it.
        page.get_by_role("button", name="Continue").click()
        page.get_by_text(code).first.wait_for()
        page.get_by_role("button", name="Allow").click()
        assert process.wait(30) == 0, process.stderr.read()
    assert product.evs_json("auth", "status")["user"] == "admin"
    product.evs("auth", "logout")


def test_a_wrong_token_is_refused_with_the_way_to_sign_in(product):
    answer = httpx.get(f"{product.app_url}/v1/runs", headers={"Authorization": "Bearer not.a.token"})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_command_line_says_what_to_do_when_it_may_not(product):
    result = product.evs("approval", "list", check=False, EVS_TOKEN="garbage")
    assert result.returncode == 4
    assert "EVS_TOKEN is refused" in result.stderr
