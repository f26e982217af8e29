"""The first start is secured, later ones change nothing, and a lost password can be reset offline."""

import stat
import subprocess
import sys

import pytest

from auth_svc.settings import AuthSettings
from lib_events.settings import SettingsRejected

PASSWORD = "correct horse battery staple"


async def test_the_generated_password_works_once_it_is_read_and_then_goes(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url, admin_password=None) as provider:
        path = provider.settings.data / "initial-admin-password"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(provider.settings.data.stat().st_mode) == 0o700
        password = path.read_text()
        assert (await (await provider.browser()).sign_in("admin", "not the password")).status_code == 401
        assert path.exists()
        assert "Your account" in (await (await provider.browser()).sign_in("admin", password)).text
        assert not path.exists()


async def test_a_given_password_is_set_once_and_written_nowhere(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        assert not (provider.settings.data / "initial-admin-password").exists()
    async with run_provider(tmp_path, sqlite_url, admin_password="another password") as provider:
        assert "Your account" in (await (await provider.browser()).sign_in("admin")).text
    for file in (tmp_path / "evs").rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()


async def test_a_later_start_keeps_keys_and_secrets_but_the_local_one(tmp_path, database_url, run_provider):
    async with run_provider(tmp_path, database_url) as provider:
        before = {name: provider.secret_of(name) for name in ("evs-gui", "evs-app", "evs-local")}
        keys = (await provider.http.get("/oauth2/jwks")).json()
        old = await provider.token(("evs-local", before["evs-local"]), grant_type="client_credentials")
        assert old.status_code == 200
    async with run_provider(tmp_path, database_url) as provider:
        after = {name: provider.secret_of(name) for name in before}
        assert (await provider.http.get("/oauth2/jwks")).json() == keys
        refused = await provider.token(("evs-local", before["evs-local"]), grant_type="client_credentials")
        assert refused.json()["error"] == "invalid_client"
    assert {name for name in before if before[name] != after[name]} == {"evs-local"}


async def test_secrets_are_for_their_owner_only(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        for path in provider.settings.secrets.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_beyond_loopback_the_local_client_is_nobody(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        secret = provider.secret_of("evs-local")
    async with run_provider(tmp_path, sqlite_url, auth_url="https://auth.example.org") as provider:
        refused = await provider.token(("evs-local", secret), grant_type="client_credentials")
        assert refused.json()["error"] == "invalid_client"
        assert not (provider.settings.secrets / "evs-local.secret").exists()
        page = await (await provider.browser()).open("/login")
        assert page.headers["set-cookie"].startswith("__Host-evs-auth-guest=")
        assert "Secure" in page.headers["set-cookie"]


@pytest.mark.parametrize("url", ["http://auth.example.org", "http://192.0.2.1:8001", "ftp://127.0.0.1"])
def test_passwords_never_travel_in_the_clear(url):
    with pytest.raises(SettingsRejected, match="must be https"):
        AuthSettings(auth_url=url).check_issuer()


@pytest.mark.parametrize("rest", ["/path", "/?a=b", "?a=b", "#part", "/path#part"])
def test_an_issuer_is_scheme_host_and_port(rest):
    with pytest.raises(SettingsRejected, match="scheme, host and port"):
        AuthSettings(auth_url=f"https://auth.example.org{rest}").check_issuer()
    with pytest.raises(SettingsRejected, match="scheme, host and port"):
        AuthSettings(auth_url="https://me@auth.example.org").check_issuer()


async def test_a_token_of_another_issuer_url_is_refused_after_moving(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        token = (await provider.tokens("admin"))["access_token"]
    async with run_provider(tmp_path, sqlite_url, auth_url="http://127.0.0.1:9001") as provider:
        assert await provider.introspect(token) == {"active": False}


def command(settings, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "auth_svc", *arguments, "--data", str(settings.data)],
        env={"EVS_AUTH_DATABASE_URL": settings.auth_database_url, "PATH": "/usr/bin"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_lost_password_is_reset_offline(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        settings = provider.settings
    done = command(settings, "reset-password", "admin", EVS_NEW_PASSWORD="a whole new password")
    assert (done.returncode, done.stdout) == (0, "The password of admin is set.\n")
    unknown = command(settings, "reset-password", "nobody")
    assert (unknown.returncode, unknown.stderr) == (3, "auth-svc: there is no user 'nobody'\n")
    short = command(settings, "reset-password", "admin", EVS_NEW_PASSWORD="short")
    assert (short.returncode, short.stderr) == (1, "auth-svc: The password must have at least 12 characters.\n")
    async with run_provider(tmp_path, sqlite_url) as provider:
        assert (await (await provider.browser()).sign_in("admin")).status_code == 401
        assert "Your account" in (await (await provider.browser()).sign_in("admin", "a whole new password")).text


async def test_lost_factors_are_removed_offline(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        browser = await provider.browser()
        await browser.sign_in("admin")
        await browser.set_up_app()
        assert "One more step" in (await (await provider.browser()).sign_in("admin")).text
        refused = command(provider.settings, "remove-factors", "admin")
    assert "DELETE http://127.0.0.1:8001/v1/admin/users/admin/factors" in refused.stderr
    done = command(provider.settings, "remove-factors", "admin")
    assert (done.returncode, done.stdout) == (0, "The password alone signs admin in now.\n")
    assert command(provider.settings, "remove-factors", "nobody").returncode == 3
    async with run_provider(tmp_path, sqlite_url) as provider:
        assert "Your account" in (await (await provider.browser()).sign_in("admin")).text


async def test_while_the_service_holds_the_file_resetting_names_the_other_way(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        refused = command(provider.settings, "reset-password", "admin")
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    assert "/v1/admin/users/admin/reset-password" in refused.stderr


async def test_people_register_themselves_only_where_it_is_allowed(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url) as provider:
        assert (await provider.http.get("/register")).status_code == 404
    async with run_provider(tmp_path, sqlite_url, registration=True) as provider:
        browser = await provider.browser()
        assert "Make one" in (await browser.open("/login")).text
        await browser.open("/register")
        short = await browser.submit(username="grace", password="short")
        assert (short.status_code, "at least 12 characters" in short.text) == (422, True)
        taken = await browser.submit(username="Admin", password=PASSWORD)
        assert "That user name is taken" in taken.text
        assert "Your account" in (await browser.submit(username="grace", password=PASSWORD)).text
