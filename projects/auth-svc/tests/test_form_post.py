"""OAuth 2.0 Form Post Response Mode: the answer comes to the client in a form, and in no URL."""

import html
import re

PASSWORD = "correct horse battery staple"
CALLBACK = "http://127.0.0.1:8000/callback"
ISSUER = "http://127.0.0.1:8001"


def posted(page, action=CALLBACK):
    """The answer that the page has its browser send to the client."""
    assert page.status_code == 200, page.text
    assert re.findall(r'action="([^"]*)"', page.text) == [action]
    inputs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
    return {name: html.unescape(value) for name, value in inputs}


async def test_the_answer_is_posted_to_the_client_and_is_in_no_url(provider):
    page = await provider.authorize(await provider.browser(), response_mode="form_post")
    assert "Password" in page.text
    browser = await provider.browser()
    await browser.sign_in("ada")
    page = await provider.authorize(browser, response_mode="form_post", state='a "quoted" <state>')
    answer = posted(page)
    assert (answer["state"], answer["iss"], answer.keys()) == ('a "quoted" <state>', ISSUER, {"code", "state", "iss"})
    assert "<state>" not in page.text
    assert (await provider.redeem(answer["code"])).json()["id_token"]
    policy = page.headers["content-security-policy"]
    assert policy.endswith("form-action 'self' http://127.0.0.1:8000")
    assert "script-src 'self';" in policy
    assert page.headers["cache-control"] == "no-store"


async def test_a_sign_in_on_the_way_leads_to_it_and_so_does_what_was_pushed(provider):
    browser = await provider.browser()
    await provider.authorize(browser, response_mode="form_post")
    assert posted(await browser.submit(username="ada", password=PASSWORD))["code"]
    pushed = await provider.post("/oauth2/par", provider.request(response_mode="form_post"), provider.gui())
    request_uri = pushed.json()["request_uri"]
    page = await browser.open(f"/oauth2/authorize?client_id=evs-gui&request_uri={request_uri}")
    assert (await provider.redeem(posted(page)["code"])).status_code == 200


async def test_errors_are_posted_too(provider, subtests):
    for changes, error in (
        ({"prompt": "none"}, "login_required"),
        ({"scope": "bogus"}, "invalid_scope"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
    ):
        with subtests.test(changes=changes):
            page = await provider.authorize(await provider.browser(), response_mode="form_post", **changes)
            answer = posted(page)
            assert (answer["error"], answer["state"], answer["iss"]) == (error, "the state", ISSUER)


async def test_what_the_person_decides_is_posted_behind_the_query_that_was_registered(provider, subtests):
    callback = "https://other.test/cb?tenant=a&b=c"
    await provider.add_client(id="other", name="Other", redirect_uris=(callback,), scopes=frozenset(("openid",)))
    request = {"client_id": "other", "redirect_uri": callback, "scope": "openid", "response_mode": "form_post"}
    browser = await provider.browser()
    await browser.sign_in("ada")
    for decision, wanted in (("deny", "error"), ("allow", "code")):
        with subtests.test(decision):
            assert "Allow access?" in (await provider.authorize(browser, **request)).text
            page = await browser.submit(decision=decision)
            answer = posted(page, html.escape(callback))
            assert wanted in answer
            assert "tenant" not in answer


async def test_the_scheme_of_an_app_takes_no_forms(provider):
    callback = "com.example.app:/callback"
    client = {"id": "app", "name": "App", "secret_digest": None, "scopes": frozenset(("openid",))}
    await provider.add_client(**client, redirect_uris=(callback,))
    request = {"client_id": "app", "redirect_uri": callback, "scope": "openid", "response_mode": "form_post"}
    page = await provider.authorize(await provider.browser(), **request)
    assert page.headers["location"].startswith(f"{callback}?error=invalid_request")
