"""Open redirects, clients that are mixed up, clocks that differ, and what nobody may learn."""

import secrets
import time
from urllib.parse import quote, urlencode, urlsplit

import pytest
from sqlalchemy import text, update

from auth_svc.tables import sessions
from lib_auth.client import DEVICE_GRANT

ISSUER = "http://127.0.0.1:8001"
CALLBACK = "http://127.0.0.1:8000/callback"
PASSWORD = "correct horse battery staple"
EVIL = "https://evil.test/"


def check_destination(location: str) -> None:
    """Nobody is ever sent anywhere but to our own pages and to what a client has registered."""
    parts = urlsplit(location)
    ours = not parts.scheme and not parts.netloc and location.startswith("/") and not location.startswith("//")
    assert ours or location.startswith(f"{CALLBACK}?"), location


ESCAPES = (
    EVIL,
    "//evil.test/",
    "/\\evil.test",
    "\\\\evil.test",
    "http:evil.test",
    "javascript:alert(1)",
    "data:text/html,x",
    f"{CALLBACK}@evil.test",
    f"{CALLBACK}.evil.test/",
    "http://127.0.0.1:8000@evil.test/callback",
    "http://127.0.0.1:8000.evil.test/callback",
    f"{CALLBACK}/../x",
    f"{CALLBACK}#x",
    f"{CALLBACK}\r\nlocation: {EVIL}",
    f" {CALLBACK}",
    "/account/../../evil",
    "/%2f/evil.test",
    "\thttps://evil.test",
)


async def test_no_parameter_that_names_a_url_leads_out(provider, subtests):
    browser = await provider.browser()
    tokens = (await provider.redeem(await provider.sign_in_for_code(browser=browser))).json()
    for escape in ESCAPES:
        with subtests.test(escape):
            asked = urlencode(provider.request(redirect_uri=escape))
            answers = [await browser.http.get(f"/oauth2/authorize?{asked}")]
            logout = urlencode({"client_id": "evs-gui", "post_logout_redirect_uri": escape})
            answers.append(await (await provider.browser()).http.get(f"/oauth2/logout?{logout}"))
            pushed = await provider.post("/oauth2/par", provider.request(redirect_uri=escape), provider.gui())
            assert pushed.status_code == 400
            answers += [pushed, await leads_on(provider, escape)]
            for answer in answers:
                assert "evil.test" not in answer.headers.get("location", "")
                if answer.is_redirect:
                    check_destination(answer.headers["location"])
    assert (await provider.introspect(tokens["access_token"]))["active"]


async def leads_on(provider, escape: str):
    """Where a sign-in leads whose way on was tampered with."""
    browser = await provider.browser()
    await browser.open("/login")
    form = {"username": "ada", "password": PASSWORD, "next": escape}
    assert browser.page is not None
    csrf = browser.page.text.split('name="csrf" value="')[1].split('"')[0]
    return await browser.http.post("/login", data=form | {"csrf": csrf}, headers={"origin": ISSUER})


async def test_what_belongs_to_another_client_is_worth_nothing(provider, subtests):
    values = {"redirect_uris": (CALLBACK,), "scopes": frozenset(("openid", "workflows:read"))}
    grants = ("authorization_code", "refresh_token", DEVICE_GRANT)
    other = await provider.add_client(id="other", name="Other", grant_types=grants, **values)
    tokens, code = await provider.tokens(), await provider.sign_in_for_code()
    device = (await provider.post("/oauth2/device_authorization", {"client_id": "evs-cli", "scope": "openid"})).json()
    mixed_up = (
        {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": provider.verifier,
        },
        {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]},
        {"grant_type": DEVICE_GRANT, "device_code": device["device_code"]},
    )
    for form in mixed_up:
        with subtests.test(form["grant_type"]):
            answer = await provider.token(other, **form)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    pushed = (await provider.post("/oauth2/par", provider.request(), provider.gui())).json()["request_uri"]
    page = await (await provider.browser()).open(f"/oauth2/authorize?client_id=other&request_uri={quote(pushed)}")
    assert (page.status_code, "invalid_request_uri" in page.text) == (400, True)
    assert (await provider.redeem(code)).status_code == 200  # the one it belongs to has lost nothing


async def test_clocks_may_differ_by_seconds_and_not_by_minutes(provider, client_key, jwk_set, sign_assertion, subtests):
    await provider.add_client(
        id="robot",
        name="Robot",
        grant_types=("client_credentials",),
        scopes=frozenset(("events:read",)),
        auth_method="private_key_jwt",
        secret_digest=None,
        jwks=jwk_set(client_key),
    )
    now = time.time()
    for changes, status in (
        ({"iat": now + 5}, 200),
        ({"nbf": now + 5}, 200),
        ({"exp": now - 5}, 200),
        ({"iat": now + 60}, 400),
        ({"nbf": now + 60}, 400),
        ({"exp": now - 60}, 400),
        ({"exp": now + 3600}, 400),
    ):
        with subtests.test(changes=changes):
            proof = sign_assertion("robot", client_key, ISSUER, **changes)
            answer = await provider.token(None, grant_type="client_credentials", scope="events:read", **proof)
            assert answer.status_code == status, answer.text


async def test_a_proof_to_a_resource_may_be_seconds_old_and_not_minutes(provider, holder, subtests):
    holder.nonce = provider.service.issuer.nonces.current()
    auth, form = ("evs-gui", provider.secret_of("evs-gui")), {"code": await provider.sign_in_for_code()}
    form |= {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": provider.verifier}
    headers = {"dpop": holder.proof(f"{ISSUER}/oauth2/token")}
    token = (await provider.http.post("/oauth2/token", data=form, auth=auth, headers=headers)).json()["access_token"]
    for age, status in ((0, 200), (30, 200), (-30, 200), (120, 401), (-120, 401)):
        with subtests.test(age=age):
            url, jti = f"{ISSUER}/oauth2/userinfo", secrets.token_urlsafe(8)
            proof = holder.proof(url, method="GET", token=token, iat=int(time.time()) - age, jti=jti)
            sent = {"authorization": f"DPoP {token}", "dpop": proof}
            assert (await provider.http.get("/oauth2/userinfo", headers=sent)).status_code == status


@pytest.fixture
def hashes(provider, monkeypatch):
    """Counts the password hashes that are computed: time that does not depend on the machine."""
    counted: list[str] = []
    hasher = type(provider.service.passwords._hasher)
    for name in ("verify", "hash"):
        original = getattr(hasher, name)
        monkeypatch.setattr(
            hasher, name, lambda self, *given, _name=name, _do=original: counted.append(_name) or _do(self, *given)
        )
    return counted


async def test_nobody_learns_whether_a_user_exists(provider, hashes, subtests):
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    await provider.add_user("grace")
    assert (await provider.http.post("/v1/admin/users/grace/disable", headers=admin)).status_code == 200
    seen = {}
    for username in ("ada", "nobody", "grace"):
        hashes.clear()
        page = await (await provider.browser()).sign_in(username, "wrong")
        told = page.text.replace(username, "somebody")
        told = told.split('name="csrf" value="')[0] + told.split('name="csrf" value="')[1].partition('"')[2]
        headers = {name for name in page.headers if name != "content-length"}
        seen[username] = (page.status_code, told, headers, tuple(hashes))
    assert seen["ada"] == seen["nobody"] == seen["grace"]
    assert seen["ada"][0] == 401
    assert seen["ada"][3] == ("verify",)


async def test_nobody_learns_whether_a_client_exists(provider):
    answers = [
        await provider.token((client_id, "wrong"), grant_type="client_credentials") for client_id in ("evs-gui", "none")
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[0].status_code == answers[1].status_code == 401


async def test_nobody_frames_our_pages(provider, subtests):
    browser = await provider.browser()
    pages = ["/login", "/oauth2/authorize?client_id=nobody", f"/oauth2/authorize?{urlencode(provider.request())}"]
    for path in (*pages, "/device", "/account", "/oauth2/logout"):
        if path == "/device":
            await browser.sign_in("ada")
        with subtests.test(path):
            page = await browser.open(path)
            assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
            assert page.headers["x-frame-options"] == "DENY"
            assert page.headers["cache-control"] == "no-store"


async def test_a_redirect_after_a_form_forwards_nothing(provider):
    signed_in = await leads_on(provider, "/account")
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/account")
    assert signed_in.headers["referrer-policy"] == "no-referrer"
    browser = await provider.browser()
    await provider.authorize(browser, client_id="evs-cli", redirect_uri="http://127.0.0.1:5555/callback")
    await browser.submit(username="ada", password=PASSWORD)
    assert (await browser.submit(decision="allow")).status_code == 303


async def test_secrets_have_256_bits(provider):
    tokens = await provider.tokens()
    device = (await provider.post("/oauth2/device_authorization", {"client_id": "evs-cli", "scope": "openid"})).json()
    pushed = (await provider.post("/oauth2/par", provider.request(), provider.gui())).json()["request_uri"]
    made = [
        await provider.sign_in_for_code(),
        tokens["refresh_token"],
        device["device_code"],
        pushed.rpartition(":")[2],
    ]
    again = await provider.tokens()
    made += [again["refresh_token"], provider.gui()[1], provider.secret_of("evs-app")]
    assert all(len(secret) >= 43 for secret in made)  # base64url of 32 bytes
    assert len(set(made)) == len(made)


async def test_no_secret_is_kept_as_it_is(provider, caplog):
    caplog.set_level("DEBUG")
    code = await provider.sign_in_for_code()
    tokens = (await provider.redeem(code)).json()
    fresh = (await provider.refresh(tokens["refresh_token"])).json()
    await provider.redeem("a code of nobody")
    pushed = (await provider.post("/oauth2/par", provider.request(), provider.gui())).json()["request_uri"]
    secrets_told = [code, fresh["refresh_token"], tokens["refresh_token"], tokens["access_token"], PASSWORD]
    secrets_told += [provider.gui()[1], pushed.rpartition(":")[2], tokens["id_token"]]

    def everything(connection):
        names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        return str([connection.execute(text(f"SELECT * FROM {name}")).all() for name in names])

    kept = await provider.service.database.read(everything)
    assert "ada" in kept
    for secret in secrets_told:
        assert secret not in kept
        assert secret not in caplog.text


async def test_neither_hints_nor_limits_tell_whether_a_user_exists(provider):
    seen = {}
    for username in ("ada", "nobody"):
        browser = await provider.browser()
        hinted = await provider.authorize(browser, login_hint=username)
        silent = await provider.authorize(browser, login_hint=username, prompt="none")
        tries = [(await (await provider.browser()).sign_in(username, "wrong")).status_code for _ in range(9)]
        seen[username] = (hinted.text.count(username), provider.answer(silent)["error"], tries)
    assert seen["ada"][2] == [401] * 8 + [429]
    assert seen["ada"][1:] == seen["nobody"][1:]
    assert seen["ada"][0] == seen["nobody"][0]


async def test_a_sign_in_that_is_too_old_is_told_where_nobody_may_be_asked(provider):
    browser = await provider.browser()
    await provider.sign_in_for_code(browser=browser)
    earlier = update(sessions).values(authenticated_at=sessions.c.authenticated_at - 2_000_000)
    await provider.service.database.transact(lambda connection: connection.execute(earlier) and None)
    for changes in ({"max_age": "0"}, {"max_age": "1"}):
        answer = provider.answer(await provider.authorize(browser, prompt="none", **changes))
        assert answer["error"] == "login_required"
