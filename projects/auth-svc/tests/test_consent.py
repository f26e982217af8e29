"""Consent: asked where it must be, remembered where it may be, refused with the right error."""

import pytest

from auth_svc.clients.client import ClientRejected
from auth_svc.endpoints import authorize
from auth_svc.people import accounts, connected_apps

PASSWORD = "correct horse battery staple"
CLI = {"client_id": "evs-cli", "redirect_uri": "http://127.0.0.1:45678/callback"}
OTHER = {"client_id": "other", "redirect_uri": "https://other.test/cb", "scope": "openid workflows:read"}


async def add_other(provider):
    scopes = frozenset(("openid", "workflows:read", "workflows:run"))
    return await provider.add_client(
        id="other", name="Other <program>", redirect_uris=("https://other.test/cb",), scopes=scopes
    )


async def test_the_command_line_asks_every_time(provider):
    browser = await provider.browser()
    await provider.authorize(browser, **CLI)
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "Allow access?" in page.text
    assert page.headers["content-security-policy"].endswith("form-action 'self' http://127.0.0.1:45678")
    answer = provider.answer(await browser.submit(decision="allow"))
    assert {"code", "state", "iss"} == answer.keys()
    assert "Allow access?" in (await provider.authorize(browser, **CLI)).text
    assert "error=consent_required" in (await provider.authorize(browser, **CLI, prompt="none")).headers["location"]


async def test_what_is_taken_back_while_a_code_is_made_is_in_no_code(provider_on_both, monkeypatch):
    """Who withdraws an app ends all that came of it: nothing may come of it behind their back a moment later."""
    provider = provider_on_both
    await add_other(provider)
    browser = await provider.browser()
    await provider.authorize(browser, **OTHER)
    await browser.submit(username="ada", password=PASSWORD)
    assert "code" in provider.answer(await browser.submit(decision="allow"))
    assert "code" in provider.answer(await provider.authorize(browser, **OTHER))  # what was allowed is remembered
    ada, load = await provider.service.database.read(accounts.find_by_username, "ada"), authorize.load

    async def then_withdrawn(*asked):
        rows = await load(*asked)
        await provider.service.database.transact(connected_apps.withdraw, ada.id, "other", provider.actor())
        return rows

    with monkeypatch.context() as changed:
        changed.setattr(authorize, "load", then_withdrawn)
        assert (await provider.authorize(browser, **OTHER)).status_code == 409
    now = provider.actor().at
    assert not await provider.service.database.read(connected_apps.apps_of, ada.id, now)
    assert "Allow access?" in (await provider.authorize(browser, **OTHER)).text


async def test_loopback_redirects_may_use_any_port_and_nothing_else(provider):
    browser = await provider.browser()
    for uri in ("http://127.0.0.1:1/callback", "http://[::1]:65000/callback", "http://127.0.0.1/callback"):
        assert "Sign in" in (await provider.authorize(browser, client_id="evs-cli", redirect_uri=uri)).text
    for uri in (
        "http://localhost:1/callback",
        "http://127.0.0.1:1/other",
        "http://127.0.0.1:1/callback?x=1",
        "http://127.0.0.1:1/callback#x",
        "https://127.0.0.1:1/callback",
        "http://127.0.0.1:x/callback",
        "http://127.0.0.2:1/callback",
        "http://user@127.0.0.1:1/callback",
        "http://127.0.0.1:1@evil.test/callback",
    ):
        assert (await provider.authorize(browser, client_id="evs-cli", redirect_uri=uri)).status_code == 400


async def test_on_loopback_the_port_alone_may_be_another(provider, subtests):
    """RFC 8252 section 7.3, whatever port was registered; a client that keeps a secret listens where it said."""
    registered = ("http://127.0.0.1:4000/back", "http://[::1]/back?from=tool", "http://localhost:4000/back")
    await provider.add_client(id="tool", name="Tool", secret_digest=None, redirect_uris=registered, scopes={"openid"})
    await provider.add_client(id="site", name="Site", redirect_uris=registered, scopes={"openid"})
    for uri, clients in (
        ("http://127.0.0.1:5000/back", {"tool"}),
        ("http://127.0.0.1:4000/back", {"tool", "site"}),
        ("http://[::1]:5000/back?from=tool", {"tool", "site"}),
        ("http://[::1]:5000/back", set()),
        ("http://[::1]:5000/back?from=other", set()),
        ("http://127.0.0.1/back", set()),
        ("http://localhost:5000/back", set()),
        ("http://127.0.0.1:05000/back", set()),
    ):
        with subtests.test(uri):
            asked = {
                client: await provider.authorize(
                    await provider.browser(), client_id=client, redirect_uri=uri, scope="openid"
                )
                for client in ("tool", "site")
            }
            assert {client for client, page in asked.items() if page.status_code == 200} == clients


async def test_a_public_client_on_loopback_asks_every_time(provider):
    callback = "http://127.0.0.1:45678/callback"
    scopes = frozenset(("openid",))
    await provider.add_client(id="tool", name="Tool", secret_digest=None, redirect_uris=(callback,), scopes=scopes)
    request = {"client_id": "tool", "redirect_uri": callback, "scope": "openid"}
    browser = await provider.browser()
    await provider.authorize(browser, **request)
    await browser.submit(username="ada", password=PASSWORD)
    provider.answer(await browser.submit(decision="allow"))
    assert "Allow access?" in (await provider.authorize(browser, **request)).text


async def test_a_refusal_goes_back_to_the_client(provider):
    browser = await provider.browser()
    await provider.authorize(browser, **CLI)
    await browser.submit(username="ada", password=PASSWORD)
    answer = provider.answer(await browser.submit(decision="deny"))
    assert answer["error"] == "access_denied"
    assert answer["state"] == "the state"


async def test_consent_is_remembered_until_more_is_asked_for(provider_on_both):
    provider = provider_on_both
    await add_other(provider)
    browser = await provider.browser()
    await provider.authorize(browser, **OTHER)
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "Other &lt;program&gt;" in page.text
    await browser.submit(decision="allow")
    assert "code=" in (await provider.authorize(browser, **OTHER)).headers["location"]
    assert "Allow access?" in (await provider.authorize(browser, **OTHER, prompt="consent")).text
    for more in ({"scope": "openid workflows:read workflows:run"}, {"resource": "http://127.0.0.1:8001/v1/admin"}):
        assert "Allow access?" in (await provider.authorize(browser, **OTHER | more)).text, more


@pytest.mark.parametrize(("scope", "named"), [("openid", True), ("openid orders", False)])
async def test_a_service_of_which_no_scope_speaks_is_named(provider, scope, named):
    """It may ask for nothing but a role or a permission, and the token says those."""
    orders = {"id": "orders", "identifier": "https://orders.test", "name": "Orders", "scopes": {"orders": "See them"}}
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    await provider.http.post("/v1/admin/resources", json=orders, headers=headers)
    asked = {"scope": scope, "resource": orders["identifier"]}
    await provider.add_client(
        id="other", name="Other", redirect_uris=(OTHER["redirect_uri"],), scopes=frozenset(("openid", "orders"))
    )
    browser = await provider.browser()
    await provider.authorize(browser, **OTHER | asked)
    page = await browser.submit(username="ada", password=PASSWORD)
    assert ("Do at Orders whatever you may do there" in page.text) == named
    device = (await provider.post("/oauth2/device_authorization", {"client_id": "evs-cli"} | asked)).json()
    await browser.open(device["verification_uri_complete"])
    assert "Do at Orders whatever you may do there" in (await browser.submit()).text, "the client may not have 'orders'"


async def test_consent_is_asked_for_although_the_sign_in_came_first_that_was_asked_for_with_it(provider, subtests):
    await add_other(provider)
    for number, prompt in enumerate(("consent", "consent", "login consent")):
        with subtests.test(number=number, prompt=prompt):
            browser = await provider.browser()
            await provider.authorize(browser, **OTHER, prompt=prompt)
            page = await browser.submit(username="ada", password=PASSWORD)
            assert "Allow access?" in page.text
            assert "code" in provider.answer(await browser.submit(decision="allow"))


async def test_a_refusal_counts_although_consent_was_given_in_another_tab(provider):
    await add_other(provider)
    browser = await provider.browser()
    await provider.authorize(browser, **OTHER)
    page = await browser.submit(username="ada", password=PASSWORD)
    await browser.submit(decision="allow")
    browser.page = page
    assert provider.answer(await browser.submit(decision="deny"))["error"] == "access_denied"


async def test_a_consent_from_elsewhere_is_refused(provider):
    await add_other(provider)
    browser = await provider.browser()
    await provider.authorize(browser, **OTHER)
    await browser.submit(username="ada", password=PASSWORD)
    assert (await browser.submit(origin="https://other.test", decision="allow")).status_code == 403
    assert (await browser.http.get("/consent")).status_code == 405


async def test_scopes_never_grow_beyond_the_client(provider):
    client = await add_other(provider)
    browser = await provider.browser()
    await provider.authorize(browser, **(OTHER | {"scope": "openid workflows:read admin events:read"}))
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "Administer" not in page.text
    code = provider.answer(await browser.submit(decision="allow"))["code"]
    answer = await provider.token(
        client,
        grant_type="authorization_code",
        code=code,
        redirect_uri="https://other.test/cb",
        code_verifier=verifier(provider),
    )
    assert answer.json()["scope"] == "openid workflows:read"


def verifier(provider):
    return provider.verifier


async def test_an_app_may_have_a_scheme_of_its_own_and_is_always_asked(provider, subtests):
    callback = "com.example.app:/callback"
    values = {"name": "App", "secret_digest": None, "scopes": frozenset(("openid",)), "consent": "never"}
    await provider.add_client(id="app", redirect_uris=(callback,), **values)
    browser = await provider.browser()
    await provider.authorize(browser, client_id="app", redirect_uri=callback, scope="openid")
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "Allow access?" in page.text  # RFC 8252 section 8.6: another app can claim the scheme
    assert page.headers["content-security-policy"].endswith("form-action 'self' com.example.app:")
    answer = await browser.submit(decision="allow")
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith("com.example.app:/callback?code=")
    for uri in ("app:/callback", "javascript:/alert", "com.example.app://host/callback", "Com.example:/x", "a.b:c"):
        with subtests.test(uri), pytest.raises(ClientRejected):
            await provider.add_client(id="bad", redirect_uris=(uri,), **values)
    with pytest.raises(ClientRejected):
        await provider.add_client(id="bad", name="Bad", redirect_uris=(callback,))  # one with a secret is no app
