"""Clients named by the URL of their metadata (OAuth Client ID Metadata Document)."""

import json

import pytest

from auth_svc.clients.documents import names_document
from lib_events.testing_receiver import receiving, status

PASSWORD = "correct horse battery staple"
BACK = "http://127.0.0.1:7777/back"


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


async def test_a_site_that_is_away_is_told_to_the_person(opened, site):
    site.serve(b"", code=500)
    browser = await opened.browser()
    page = await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)
    assert (page.status_code, "cannot be recognised" in page.text) == (400, True)
    site.serve(b"not yet")
    assert (await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)).status_code == 400
    site.serve({"client_id": site.client_id, "redirect_uris": [BACK], "scope": "openid"})  # no error is remembered
    assert "Sign in" in (await opened.authorize(browser, client_id=site.client_id, redirect_uri=BACK)).text


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
