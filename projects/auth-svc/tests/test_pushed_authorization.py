"""Pushed authorization requests (RFC 9126): what the client says before the browser comes."""

import asyncio
from urllib.parse import urlencode

import pytest
from sqlalchemy import update

from auth_svc.tables import pushed_requests

ISSUER = "http://127.0.0.1:8001"
PASSWORD = "correct horse battery staple"


async def push(provider, auth=None, **changes):
    return await provider.post("/oauth2/par", provider.request(**changes), auth or provider.gui())


def link(answer, client_id="evs-gui", **more):
    return (
        f"/oauth2/authorize?{urlencode({'client_id': client_id, 'request_uri': answer.json()['request_uri']} | more)}"
    )


async def test_a_pushed_request_becomes_a_code_and_its_tokens(provider_on_both):
    provider = provider_on_both
    pushed = await push(provider)
    assert (pushed.status_code, pushed.json()["expires_in"], pushed.headers["cache-control"]) == (201, 90, "no-store")
    browser = await provider.browser()
    await browser.open(link(pushed))
    answer = provider.answer(await browser.submit(username="ada", password=PASSWORD))
    assert (answer["state"], answer["iss"]) == ("the state", ISSUER)
    assert (await provider.redeem(answer["code"])).json()["id_token"]


async def test_a_sign_in_before_the_browser_came_with_it_leads_there_first(provider):
    pushed = await push(provider)
    page = await (await provider.browser()).sign_in("ada", at=f"/login?{urlencode({'next': link(pushed)})}")
    assert page.request.url.path == "/oauth2/authorize"
    assert (await provider.redeem(provider.answer(page)["code"])).status_code == 200


async def test_what_was_pushed_is_all_that_counts(provider):
    pushed = await push(provider)
    browser = await provider.browser()
    await browser.open(link(pushed, scope="admin", state="another", redirect_uri="https://evil.example/"))
    answer = provider.answer(await browser.submit(username="ada", password=PASSWORD))
    assert answer["state"] == "the state"
    assert "admin" not in (await provider.redeem(answer["code"])).json()["scope"].split()


async def test_it_is_answered_with_one_code(provider_on_both):
    provider = provider_on_both
    pushed = await push(provider)
    browser = await provider.browser()
    await browser.sign_in("ada")
    first = await browser.open(link(pushed))
    assert provider.answer(first)["code"]
    again = await browser.open(link(pushed))
    assert (again.status_code, "invalid_request_uri" in again.text) == (400, True)
    twenty = link(await push(provider))
    answers = await asyncio.gather(*(browser.http.get(twenty) for _ in range(20)))
    assert sum("code=" in answer.headers.get("location", "") for answer in answers) == 1


async def test_it_belongs_to_its_client_and_runs_out(provider):
    await provider.add_client(id="other", name="Other", redirect_uris=("https://other.example/",), scopes={"openid"})
    browser = await provider.browser()
    pushed = await push(provider)
    assert "invalid_request_uri" in (await browser.open(link(pushed, client_id="other"))).text
    await provider.service.database.transact(
        lambda connection: connection.execute(update(pushed_requests).values(expires_at=1)) and None
    )
    assert "invalid_request_uri" in (await browser.open(link(pushed))).text
    nonsense = {"client_id": "evs-gui", "request_uri": "urn:ietf:params:oauth:request_uri:nonsense"}
    assert "invalid_request_uri" in (await browser.open(f"/oauth2/authorize?{urlencode(nonsense)}")).text


async def test_whoever_comes_too_late_does_not_begin_it(provider_on_both):
    provider, browser = provider_on_both, await provider_on_both.browser()
    await browser.sign_in("ada")
    pushed, now = await push(provider), provider.service.clock.micros()
    await provider.service.database.transact(
        lambda connection: connection.execute(update(pushed_requests).values(expires_at=now)) and None
    )
    page = await browser.open(link(pushed))
    assert (page.status_code, "invalid_request_uri" in page.text) == (400, True)


async def test_what_names_it_must_not_come_twice(provider, subtests):
    """RFC 6749 section 3.1: one would be looked up and the other checked, and neither runs out."""
    browser = await provider.browser()
    await browser.sign_in("ada")
    pushed = await push(provider)
    await provider.service.database.transact(
        lambda connection: connection.execute(update(pushed_requests).values(expires_at=1)) and None
    )
    uri = pushed.json()["request_uri"]
    for more in (
        [("request_uri", "x")],
        [("request_uri", uri)],
        [("client_id", "evs-gui")],
        [("client_id", "evs-cli")],
    ):
        with subtests.test(more=more):
            query = urlencode([("client_id", "evs-gui"), ("request_uri", uri), *more])
            page = await browser.open(f"/oauth2/authorize?{query}")
            assert (page.status_code, "invalid_request" in page.text) == (400, True)


async def test_a_fresh_sign_in_is_asked_for_once(provider):
    browser = await provider.browser()
    await browser.sign_in("ada")
    for changes in ({"prompt": "login"}, {"max_age": "0"}):
        page = await browser.open(link(await push(provider, **changes)))
        assert "Password" in page.text
        assert provider.answer(await browser.submit(username="ada", password=PASSWORD))["code"]


async def test_prompt_none_is_decided_when_the_browser_comes(provider):
    pushed = await push(provider, prompt="none")
    assert pushed.status_code == 201
    browser = await provider.browser()
    assert provider.answer(await browser.open(link(pushed)))["error"] == "login_required"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "https://evil.example/"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "nothing-known"}, "invalid_scope"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
        ({"request": "e30."}, "request_not_supported"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"),
        ({"dpop_jkt": "short"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
    ],
)
async def test_a_wrong_request_is_told_to_the_client_at_once(provider, changes, error):
    answer = await push(provider, **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_whoever_pushes_names_no_other_client(provider):
    answer = await provider.post("/oauth2/par", provider.request(client_id="evs-cli"), provider.gui())
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_strangers_cannot_push(provider):
    wrong = await push(provider, auth=("evs-gui", "wrong"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert (await provider.http.get("/oauth2/par")).status_code == 405


async def test_a_client_that_must_push_cannot_do_without(provider):
    await provider.add_client(
        id="careful",
        name="Careful",
        redirect_uris=("https://careful.example/back",),
        scopes=frozenset(("openid",)),
        pushed_only=True,
    )
    browser = await provider.browser()
    page = await provider.authorize(browser, client_id="careful", redirect_uri="https://careful.example/back")
    assert (page.status_code, "must push" in page.text) == (400, True)


async def test_the_key_of_a_pushed_proof_is_the_one_the_code_is_for(provider, holder):
    holder.nonce = provider.service.issuer.nonces.current()
    headers = {"dpop": holder.proof(f"{ISSUER}/oauth2/par")}
    pushed = await provider.http.post("/oauth2/par", data=provider.request(), auth=provider.gui(), headers=headers)
    assert pushed.status_code == 201
    assert pushed.headers["dpop-nonce"]
    browser = await provider.browser()
    await browser.open(link(pushed))
    code = provider.answer(await browser.submit(username="ada", password=PASSWORD))["code"]
    assert (await provider.redeem(code)).json()["error"] == "invalid_grant"


async def test_who_comes_again_with_a_nonce_may_bring_the_same_assertion(
    provider, client_key, jwk_set, sign_assertion, new_holder
):
    holder = new_holder()
    await provider.add_client(
        id="careful",
        name="Careful",
        redirect_uris=("https://careful.example/back",),
        grant_types=("authorization_code", "client_credentials"),
        scopes=frozenset(("openid", "events:read")),
        auth_method="private_key_jwt",
        secret_digest=None,
        jwks=jwk_set(client_key),
    )
    wanted = provider.request(client_id="careful", redirect_uri="https://careful.example/back", scope="openid")
    for path, form in (
        ("/oauth2/par", wanted),
        ("/oauth2/token", {"grant_type": "client_credentials", "scope": "events:read"}),
    ):
        holder.nonce, url = None, f"{ISSUER}{path}"
        sent = form | sign_assertion("careful", client_key, ISSUER)
        asked = await provider.http.post(path, data=sent, headers={"dpop": holder.proof(url)})
        assert asked.json()["error"] == "use_dpop_nonce"
        holder.nonce = asked.headers["dpop-nonce"]
        assert (await provider.http.post(path, data=sent, headers={"dpop": holder.proof(url)})).is_success, path
        again = await provider.http.post(path, data=sent, headers={"dpop": holder.proof(url)})
        assert again.json()["error"] == "invalid_client", "it counts once"


async def test_a_proof_pushes_once(provider, holder):
    holder.nonce = provider.service.issuer.nonces.current()
    headers = {"dpop": holder.proof(f"{ISSUER}/oauth2/par")}
    form, auth = provider.request(), provider.gui()
    assert (await provider.http.post("/oauth2/par", data=form, auth=auth, headers=headers)).status_code == 201
    again = await provider.http.post("/oauth2/par", data=form, auth=auth, headers=headers)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_dpop_proof")


async def test_public_clients_push_within_limits(provider):
    form = provider.request(client_id="evs-cli", redirect_uri="http://127.0.0.1:4444/callback")
    answers = [await provider.post("/oauth2/par", form) for _ in range(61)]
    assert {answer.status_code for answer in answers[:60]} == {201}
    assert (answers[60].status_code, answers[60].json()["error"]) == (429, "temporarily_unavailable")
    assert int(answers[60].headers["retry-after"]) > 0


async def test_a_pushed_proof_must_be_of_the_key_that_is_named(provider, new_holder, holder):
    holder.nonce = provider.service.issuer.nonces.current()
    headers = {"dpop": holder.proof(f"{ISSUER}/oauth2/par")}
    form = provider.request(dpop_jkt=new_holder().thumbprint)
    answer = await provider.http.post("/oauth2/par", data=form, auth=provider.gui(), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


async def test_an_assertion_may_name_the_issuer_or_an_endpoint(provider, client_key, jwk_set, sign_assertion, subtests):
    await provider.add_client(
        id="robot",
        name="Robot",
        redirect_uris=("https://robot.example/back",),
        scopes=frozenset(("openid",)),
        auth_method="private_key_jwt",
        secret_digest=None,
        jwks=jwk_set(client_key),
    )
    form = provider.request(client_id="robot", redirect_uri="https://robot.example/back", scope="openid")
    for audience, status in (
        (ISSUER, 201),
        (f"{ISSUER}/oauth2/token", 201),
        (f"{ISSUER}/oauth2/par", 201),
        ("https://other.example", 400),
    ):
        with subtests.test(audience):
            pushed = await provider.post("/oauth2/par", form | sign_assertion("robot", client_key, audience))
            assert pushed.status_code == status
