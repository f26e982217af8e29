"""A full disk: whoever is told to try again may, all goes on once there is room, and nothing acknowledged is lost."""

import pytest
from sqlalchemy import text, update

from auth_svc import audit_chain, tables
from auth_svc.mail import postman
from lib_events.database import CommitFailed
from lib_events.testing import wait_until

OFTEN = 35  # more than a person may try to sign in or to recover, or a network to make accounts
PASSWORD = "correct horse battery staple"


@pytest.fixture
async def provider(run_provider, tmp_path, sqlite_url, monkeypatch):
    monkeypatch.setattr(postman, "PAUSE_SECONDS", 0.05)
    async with run_provider(tmp_path, sqlite_url, registration="open", client_registration="open") as running:
        await running.add_user("ada", email="ada@home.test")
        yield running


async def fill(database):
    """Let the file grow no more."""
    pages = database._raw.execute("PRAGMA page_count").fetchone()[0]
    database._raw.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CommitFailed):
        await database.transact(lambda connection: connection.execute(text("CREATE TABLE x AS SELECT zeroblob(99999)")))


async def submitted(browser, page, **values):
    browser.page = page
    return await browser.submit(**values)


async def test_whoever_is_told_to_try_again_may_and_nothing_that_was_acknowledged_is_lost(provider):
    database, sign_up = provider.service.database, await provider.browser()
    form, wanted = await sign_up.open("/register"), {"username": "grace", "password": PASSWORD, "email": "g@home.test"}
    await fill(database)
    signed_in, refused = [], 0
    while refused < OFTEN:
        browser = await provider.browser()
        answer = await browser.sign_in("ada")
        if answer.status_code == 200:
            signed_in.append(browser)  # what there was of the file had room for it
            continue
        refused += 1
        made = await submitted(sign_up, form, **wanted)
        assert (answer.status_code, made.status_code, answer.headers["retry-after"]) == (503, 503, "2")
    database._raw.execute("PRAGMA max_page_count = 1000000")
    assert (await (await provider.browser()).sign_in("ada")).status_code == 200
    assert (await submitted(sign_up, form, **wanted)).status_code == 200
    for browser in signed_in:
        assert "Your account" in (await browser.open("/account")).text
    assert "To: g@home.test" in await provider.mailbox.receive("verify")
    await wait_until(lambda: database.read(is_chained))
    await database.read(audit_chain.verify, None)


def is_chained(connection):
    return connection.scalar(text("SELECT count(*) FROM audit WHERE position IS NULL")) == 0


async def test_a_wrong_password_counts_whether_or_not_that_can_be_kept(provider):
    await fill(provider.service.database)
    browser = await provider.browser()
    page = await browser.open("/login")
    answers = [(await submitted(browser, page, username="ada", password="wrong")).status_code for _ in range(OFTEN)]
    assert set(answers) <= {401, 503, 429}
    assert answers[-1] == 429


async def test_a_person_reads_a_page_and_a_program_a_problem(provider):
    await fill(provider.service.database)

    async def refused(accept):
        browser = await provider.browser()
        browser.http.headers["accept"] = accept
        answer = await browser.sign_in("ada")
        return answer if answer.status_code == 503 else None

    page = await wait_until(lambda: refused("text/html"))
    assert ("<h1>Not now</h1>" in page.text, page.headers["retry-after"]) == (True, "2")
    problem = (await wait_until(lambda: refused("*/*"))).json()
    assert (problem["status"], problem["type"]) == (503, "urn:evs:problem:try-again")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/login", {"username": "ada", "password": PASSWORD}),
        ("/register", {"username": "grace", "password": PASSWORD}),
        ("/recover", {"wanted": "ada"}),
    ],
)
async def test_what_nobody_could_save_counts_for_no_limit(provider, monkeypatch, path, values):
    """Where thousands sit behind one address, an outage of a minute would keep all of them out for an hour."""
    browser, database = await provider.browser(), provider.service.database
    page = await browser.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(type(database), "transact", away)
        assert {(await submitted(browser, page, **values)).status_code for _ in range(OFTEN)} == {503}
    assert (await submitted(browser, page, **values)).status_code == 200


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/oauth2/device_authorization", {"data": {"client_id": "evs-cli", "scope": "openid"}}),
        ("/oauth2/register", {"json": {"redirect_uris": ["https://app.example/back"]}}),
    ],
)
async def test_what_a_program_could_not_save_counts_for_no_limit(provider, monkeypatch, path, wanted):
    http = (await provider.browser()).http
    with monkeypatch.context() as patch:
        patch.setattr(type(provider.service.database), "transact", away)
        assert {(await http.post(path, **wanted)).status_code for _ in range(2 * OFTEN)} == {503}
    assert (await http.post(path, **wanted)).is_success


async def test_a_known_browser_stays_one_however_often_nobody_could_save_its_sign_in(provider, monkeypatch):
    browser, database = await provider.browser(), provider.service.database
    await browser.sign_in("ada")
    page = await browser.open("/login?prompt=login")
    guessed = update(tables.users).values(wrong_passwords=1_000)  # by strangers: only known browsers are let in
    await database.transact(lambda connection: connection.execute(guessed))
    assert (await (await provider.browser()).sign_in("ada")).status_code == 401
    with monkeypatch.context() as patch:
        patch.setattr(type(database), "transact", away)
        asked = {"username": "ada", "password": PASSWORD}
        assert {(await submitted(browser, page, **asked)).status_code for _ in range(OFTEN)} == {503}
    assert (await submitted(browser, page, **asked)).status_code == 200


async def away(_database, *_asked, **_options):
    raise CommitFailed("the disk is full")
