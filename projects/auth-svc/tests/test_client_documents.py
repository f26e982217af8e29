"""Clients named by the URL of their metadata (OAuth Client ID Metadata Document)."""

import asyncio
import json
from urllib.parse import quote, urlencode

import pytest
from sqlalchemy import select, update

from auth_svc.audit import Actor
from auth_svc.clients import documents, unused
from auth_svc.clients.documents import names_document
from auth_svc.tables import clients
from lib_events.testing.receiver import receiving, status

ISSUER = "http://127.0.0.1:8001"
PASSWORD = "correct horse battery staple"
BACK = "http://127.0.0.1:7777/back"
GRANTS = ("authorization_code", "refresh_token")


@pytest.fixture
async def opened(run_provider, tmp_path, sqlite_url):
    """An AuthService that knows clients by their documents."""
    async with run_provider(tmp_path, sqlite_url, client_documents=True) as running:
        await running.add_user("ada")
        yield running


@pytest.fixture
async def site():
    """Serves a client's document."""
    async with receiving() as receiver:
        yield Site(receiver)


class Site:
    def __init__(self, receiver):
        self.receiver = receiver
        self.client_id = receiver.url + "/client.json"
        self.serve({"client_id": self.client_id, "client_name": "Far", "redirect_uris": [BACK], "scope": "openid"})

    def serve(self, document, code=200):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()

        async def answer(_received, writer):
            head = f"HTTP/1.1 {code} Told\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()

        self.receiver.answer = answer


async def test_a_client_signs_people_in_without_being_registered(opened, site):
    browser = await opened.browser()
    await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK, scope="openid workflows:read")
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "Far" in page.text
    assert "127.0.0.1" in page.text
    code = opened.answer(await browser.submit(decision="allow"))["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": opened.verifier}
    tokens = (await opened.token(client_id=site.client_id, **form)).json()
    assert tokens["scope"] == "openid"
    await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK, scope="openid")
    assert len(site.receiver.received) == 1  # it is kept for an hour


@pytest.mark.parametrize(
    "document",
    [
        {"client_id": "https://another.example/client.json", "redirect_uris": [BACK]},
        {"client_id": None},
        {"client_secret": "x"},
        {"client_secret_expires_at": 0},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"redirect_uris": ["http://evil.example/"]},
        {"redirect_uris": []},
        b"not json",
        b"[]",
        b" " * 20_000,
    ],
    ids=str,
)
async def test_a_document_that_lies_is_refused(opened, site, document):
    if isinstance(document, dict):
        document = {"client_id": site.client_id, "redirect_uris": [BACK]} | document
    site.serve(document)
    browser = await opened.browser()
    page = await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK, scope="openid")
    assert (page.status_code, "invalid_client" in page.text) == (400, True)


async def test_a_document_counts_when_it_is_answered_with_200_and_short(opened, site, subtests):
    document = {"client_id": site.client_id, "redirect_uris": [BACK], "scope": "openid"}
    padded = json.dumps(document).encode() + b" " * documents.LIMIT_BYTES
    for name, body, code in (("an error", document, 404), ("a redirect", document, 302), ("a flood", padded, 200)):
        with subtests.test(name):
            site.serve(body, code)
            browser = await opened.browser()
            page = await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK, scope="openid")
            assert (page.status_code, "must be answered with 200" in page.text) == (400, True)


async def test_of_many_at_once_one_looks_the_document_up(opened, site):
    request = urlencode(opened.request(client_id=site.client_id, redirect_uri=BACK, scope="openid"))
    pages = await asyncio.gather(*(opened.http.get(f"/oauth2/authorize?{request}") for _ in range(20)))
    assert {page.status_code for page in pages} == {303}
    assert len(site.receiver.received) == 1


async def test_of_two_processes_that_meet_a_client_at_once_neither_fails(run_provider, tmp_path, database_url, site):
    if database_url.startswith("sqlite"):
        pytest.skip("one process has the file")
    settings = {"client_documents": True}
    async with (
        run_provider(tmp_path, database_url, **settings) as one,
        run_provider(tmp_path, database_url, **settings) as other,
    ):
        for number in range(5):
            client_id = f"{site.client_id}?{number}"
            site.serve({"client_id": client_id, "redirect_uris": [BACK], "scope": "openid"})
            query = urlencode(one.request(client_id=client_id, redirect_uri=BACK, scope="openid"))
            pages = await asyncio.gather(*(each.http.get(f"/oauth2/authorize?{query}") for each in (one, other) * 3))
            assert {page.status_code for page in pages} == {303}


async def test_what_an_administrator_says_of_a_client_outlives_the_next_look_at_its_document(opened, site):
    browser = await opened.browser()
    await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK, scope="openid")
    token = {"authorization": f"Bearer {await opened.admin_token()}"}
    path = f"/v1/admin/clients/{quote(site.client_id, safe='')}"
    said = {"consent": "always", "access_token_seconds": 60}
    assert (await opened.http.patch(path, json=said, headers=token)).status_code == 200
    refused = await opened.http.patch(path, json={"scopes": []}, headers=token)
    assert (refused.status_code, "document" in refused.json()["detail"]) == (409, True)
    assert (await opened.http.post(f"{path}/disable", headers=token)).status_code == 200
    await opened.service.database.transact(look_again)
    page = await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK, scope="openid")
    assert "invalid_client" in page.text
    shown = (await opened.http.get(path, headers=token)).json()
    assert (shown["consent"], shown["access_token_seconds"], shown["enabled"]) == ("always", 60, False)
    assert len(site.receiver.received) == 2


async def test_administrators_withdraw_what_such_a_client_was_allowed(opened, site):
    browser = await opened.browser()
    await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK, scope="openid")
    await browser.submit(username="ada", password=PASSWORD)
    await browser.submit(decision="allow")
    token, path = {"authorization": f"Bearer {await opened.admin_token()}"}, "/v1/admin/users/ada/consents"
    (consent,) = (await opened.http.get(path, headers=token)).json()["items"]
    withdrawn = await opened.http.delete(f"{path}/{quote(consent['client'], safe='')}", headers=token)
    assert (withdrawn.status_code, (await opened.http.get(path, headers=token)).json()["items"]) == (204, [])


async def test_a_client_that_nobody_allowed_anything_is_forgotten_until_somebody_comes_by_it_again(opened, site):
    browser = await opened.browser()
    request = {"client_id": site.client_id, "redirect_uri": BACK, "scope": "openid"}

    async def is_known():
        rows = await opened.service.database.read(lambda connection: connection.execute(select(clients.c.id)).all())
        return site.client_id in {row.id for row in rows}

    async def prune():
        month = 31 * 24 * 3600 * 1_000_000
        return await opened.service.database.transact(unused.prune, 30, Actor(opened.actor().at + month, "pruner"))

    await opened.authorize(browser, **request)
    assert (await is_known(), await prune(), await is_known()) == (True, 1, False)
    await opened.authorize(browser, **request)
    await browser.submit(username="ada", password=PASSWORD)
    assert "code" in opened.answer(await browser.submit(decision="allow"))
    assert (await prune(), await is_known()) == (0, True)


def look_again(connection):
    connection.execute(update(clients).where(clients.c.origin == "document").values(fetched_at=1))


async def test_a_document_that_asks_for_more_while_the_person_reads_is_not_allowed_more(opened, site):
    """Whoever serves it can see to it that it is read again between the page and the press."""
    asked = {"client_id": site.client_id, "redirect_uri": BACK, "scope": "openid workflows:run offline_access"}
    browser, stranger = await opened.browser(), await opened.browser()
    await opened.authorize(browser, **asked)
    page = await browser.submit(username="ada", password=PASSWORD)
    assert "Start workflows" not in page.text
    site.serve({"client_id": site.client_id, "redirect_uris": [BACK], "scope": asked["scope"]})
    await opened.service.database.transact(look_again)
    await opened.authorize(stranger, **asked)
    page = await browser.submit(decision="allow")
    assert (page.status_code, "Start workflows" in page.text) == (200, True), "the person is asked for that, too"
    assert "code" in opened.answer(await browser.submit(decision="allow"))


async def test_a_site_that_is_away_is_told_to_the_person(opened, site):
    site.serve(b"", code=500)
    browser = await opened.browser()
    page = await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)
    assert (page.status_code, "cannot be recognised" in page.text) == (400, True)
    site.serve(b"not yet")
    assert (await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)).status_code == 400
    site.serve({"client_id": site.client_id, "redirect_uris": [BACK], "scope": "openid"})  # no error is remembered
    assert "Sign in" in (await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)).text


async def test_a_key_is_worth_what_the_document_says_of_it_now(opened, site, new_key, jwk_set, sign_assertion):
    """Between two sign-ins there may be months; a client that only refreshes would prove itself with a lost key."""
    lost, fresh = new_key(), new_key()
    document = {"client_id": site.client_id, "redirect_uris": [BACK], "token_endpoint_auth_method": "private_key_jwt"}
    site.serve(document | {"jwks": json.loads(jwk_set(lost))})
    await opened.authorize(await opened.browser(), client_id=site.client_id, redirect_uri=BACK, scope="openid")
    site.serve(document | {"jwks": json.loads(jwk_set(fresh))})
    grant = {"grant_type": "authorization_code", "code": "c", "redirect_uri": BACK, "code_verifier": "v" * 43}

    async def answer(key):
        told = await opened.token(**grant, **sign_assertion(site.client_id, key, ISSUER))
        return told.json()["error"]

    assert (await answer(lost), await answer(fresh)) == ("invalid_client", "invalid_grant")
    opened.service.client_keys._fetched.clear()
    site.serve(document | {"jwks": json.loads(jwk_set(fresh)), "client_id": f"{site.client_id}?other"})
    assert await answer(fresh) == "invalid_client", "it is another client's document"


async def test_a_document_elsewhere_is_not_looked_for(opened, site):
    site.receiver.answer = status(302, location=f"{site.receiver.url}/other.json")
    browser = await opened.browser()
    page = await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)
    assert (page.status_code, "cannot be recognised" in page.text) == (400, True)
    assert [received.target for received in site.receiver.received] == ["/hook/client.json"]


async def test_only_addresses_that_may_be_asked_are_asked(opened):
    browser = await opened.browser()
    for client_id in ("https://10.0.0.1/client.json", "https://169.254.169.254/latest/meta-data"):
        page = await opened.authorize(browser, client_id=client_id, redirect_uri=BACK)
        assert (page.status_code, "invalid_client" in page.text) == (400, True)


async def test_strangers_cannot_have_us_look_up_clients_without_end(opened, site):
    site.serve(b"", code=404)
    browser = await opened.browser()
    for _ in range(35):
        await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)
    assert len(site.receiver.received) == 30


async def test_where_it_is_off_such_clients_are_unknown(provider, site):
    browser = await provider.browser()
    page = await provider.authorize(browser, client_id=site.client_id, redirect_uri=BACK)
    assert page.status_code == 400
    assert site.receiver.received == []
    document = (await provider.http.get("/.well-known/openid-configuration")).json()
    assert document["client_id_metadata_document_supported"] is False


async def test_where_it_is_off_again_those_that_were_known_are_unknown(run_provider, tmp_path, sqlite_url, site):
    request = {"client_id": site.client_id, "redirect_uri": BACK, "scope": "openid offline_access"}
    site.serve(
        {"client_id": site.client_id, "redirect_uris": [BACK], "grant_types": [*GRANTS], "scope": request["scope"]}
    )
    async with run_provider(tmp_path, sqlite_url, client_documents=True) as before:
        await before.add_user("ada")
        browser = await before.browser()
        await before.authorize(browser, **request)
        await browser.submit(username="ada", password=PASSWORD)
        code = before.answer(await browser.submit(decision="allow"))["code"]
        form = {"code": code, "redirect_uri": BACK, "code_verifier": before.verifier, "client_id": site.client_id}
        tokens = (await before.token(grant_type="authorization_code", **form)).json()
    async with run_provider(tmp_path, sqlite_url) as after:
        page = await after.authorize(await after.browser(), **request)
        assert (page.status_code, "invalid_client" in page.text) == (400, True)
        form = {"refresh_token": tokens["refresh_token"], "client_id": site.client_id}
        refused = await after.token(grant_type="refresh_token", **form)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client")


@pytest.mark.parametrize(
    ("client_id", "named"),
    [
        ("https://a.example/c", True),
        ("https://a.example/", False),
        ("https://a.example", False),
        ("https://a.example/c#x", False),
        ("https://me@a.example/c", False),
        ("https://a.example/x/../c", False),
        ("https://[bad/c", False),
        ("ftp://a.example/c", False),
        ("evs-gui", False),
    ],
)
def test_what_names_a_document(client_id, named):
    assert names_document(client_id) == named
