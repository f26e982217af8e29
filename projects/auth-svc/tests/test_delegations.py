"""Delegations: a client acts for a person while they are away, in what they allowed, until it ends."""

import asyncio
import runpy
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from delegating_app import ACCESS_TOKEN, DELEGATION, EXCHANGE, ORDERS, STOCK, Delegating
from sqlalchemy import insert, select, update

from auth_svc.clients import clients
from auth_svc.endpoints import token as token_endpoint
from auth_svc.people import account_changes, accounts, connected_apps, consents, delegations
from auth_svc.pruner import prune
from auth_svc.rights import definitions
from auth_svc.site.person import in_session
from auth_svc.tables import clients as client_table
from auth_svc.tables import delegations as delegation_table
from auth_svc.tables import families as family_table
from lib_auth.delegations import ConsentNeeded, DelegationRejected, Delegations

EXAMPLES = Path(__file__).parents[3] / "examples"
APP = "http://127.0.0.1:8002"
DELEGATION_EVENTS = tuple(f"evs.grant.{what}" for what in ("delegated", "delegation-used", "delegation-withdrawn"))
HOUR = 3600 * 1_000_000


async def test_what_comes_of_a_token_of_a_delegation_ends_with_it_too(delegating_on_both):
    """Or whoever acts would exchange its tokens for longer ones, over and over, and so would each service it calls."""
    delegating, provider = delegating_on_both, delegating_on_both.provider
    await delegating.allow("workflows:read", APP)
    asked = {"resources": (APP,), "scope": "workflows:read", "delegation_seconds": "60"}
    given = await delegating.ask((await provider.tokens())["access_token"], **asked)
    token = (await delegating.use(given.json()["access_token"], resource=APP)).json()["access_token"]
    for _ in range(3):
        form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
        answer = await provider.post("/oauth2/token", form, delegating.app())
        assert answer.status_code == 200, answer.text
        assert answer.json()["expires_in"] <= 60
        token = answer.json()["access_token"]


async def test_there_is_a_bound_to_what_acts_for_a_person_at_once(delegating_on_both):
    """Or nobody could end all of it in one transaction, as whoever is put out must end."""
    delegating, provider = delegating_on_both, delegating_on_both.provider
    first = await delegating.given()
    family = {"user_id": await delegating.subject(), "client_id": "evs-app", "scope": "orders:read", "resources": "[]"}
    rows = {
        family_table: family | {"id": "f{}", "authenticated_at": 1, "created_at": 1, "methods": "[]"},
        delegation_table: {"id": "d{}", "family_id": "f{}", "purpose": "Run {}", "expires_at": 2**62},
    }

    def fill(connection):
        for table, row in rows.items():
            made = [
                {name: value.format(number) if isinstance(value, str) else value for name, value in row.items()}
                for number in range(delegations.MOST_ALIVE - 1)
            ]
            connection.execute(insert(table), made)

    await provider.service.database.transact(fill)
    token = (await provider.tokens())["access_token"]
    refused = await delegating.ask(token)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    assert "live at once" in refused.json()["error_description"]
    await provider.post("/oauth2/revoke", {"token": first}, delegating.app())
    assert (await delegating.ask(token)).status_code == 200


async def test_a_person_allows_it_once_and_the_client_gets_tokens_for_days(delegating_on_both):
    delegating, provider = delegating_on_both, delegating_on_both.provider
    await delegating.make_resource()
    tokens = await provider.tokens()
    refused = (await delegating.ask(tokens["access_token"])).json()
    assert refused["error"] == "consent_required"
    allowing = urlsplit(refused["consent_uri"])
    assert parse_qs(allowing.query) == {"client": ["evs-app"], "scope": ["orders:read"], "resource": [ORDERS]}

    browser = await provider.browser()
    await browser.sign_in("ada", at=f"{allowing.path}?{allowing.query}")
    assert "See your orders" in browser.page.text
    assert "Change your orders" not in browser.page.text
    assert "Allowed" in (await browser.submit(decision="allow")).text

    answer = await delegating.ask(tokens["access_token"])
    body = answer.json()
    assert (body["issued_token_type"], body["token_type"]) == (DELEGATION, "N_A")
    assert (body["scope"], body["expires_in"]) == ("orders:read", 7 * 24 * 3600)
    # It outlives the person's token and their session.
    await provider.post("/oauth2/revoke", {"token": tokens["refresh_token"]}, provider.gui())
    acting = (await delegating.use(body["access_token"], resource=ORDERS)).json()
    assert (acting["issued_token_type"], acting["token_type"], acting["scope"]) == (
        ACCESS_TOKEN,
        "Bearer",
        "orders:read",
    )
    assert acting["expires_in"] == 300
    told = (await provider.post("/oauth2/introspect", {"token": acting["access_token"]}, ("orders", "secret"))).json()
    assert (told["sub"], told["aud"], told["client_id"]) == (await delegating.subject(), ORDERS, "evs-app")
    assert (told["act"], told["roles"]) == ({"sub": "evs-app"}, ["member"])


async def test_signing_in_to_a_client_lets_it_do_nothing_while_one_is_away(delegating):
    """What was allowed for a sign-in ends with it; only who is asked for more, or for `offline_access`, allows more."""
    provider, back = delegating.provider, "https://portal.example/back"
    auth = await provider.add_client(
        id="portal",
        name="Portal",
        redirect_uris=(back,),
        grant_types=("authorization_code", EXCHANGE),
        scopes=frozenset(("openid", "offline_access")),
    )
    await delegating.make_resource(actors=("portal",))
    await provider.service.database.transact(clients.change, "portal", with_orders, provider.actor())
    browser = await provider.browser()
    for scope, error in (("openid orders:read", "consent_required"), ("openid orders:read offline_access", None)):
        request = {"client_id": "portal", "redirect_uri": back, "scope": scope, "resource": ORDERS}
        await provider.authorize(browser, **request)
        if error is not None:
            await browser.submit(username="ada", password="correct horse battery staple")
        code = provider.answer(await browser.submit(decision="allow"))["code"]
        form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
        token = (await provider.token(auth, grant_type="authorization_code", **form)).json()["access_token"]
        assert (await delegating.ask(token, auth)).json().get("error") == error


async def test_what_is_allowed_for_while_one_is_away_is_that_and_not_what_was_allowed_before(delegating_on_both):
    delegating, provider, back = delegating_on_both, delegating_on_both.provider, "https://portal.example/back"
    auth = await provider.add_client(
        id="portal",
        name="Portal",
        redirect_uris=(back,),
        grant_types=("authorization_code", EXCHANGE),
        scopes=frozenset(("openid", "offline_access")),
    )
    await delegating.make_resource(actors=("portal",))
    await provider.service.database.transact(clients.change, "portal", with_orders, provider.actor())
    browser = await provider.browser()
    request = {"client_id": "portal", "redirect_uri": back, "scope": "openid orders:read", "resource": ORDERS}
    await provider.authorize(browser, **request)
    await browser.submit(username="ada", password="correct horse battery staple")
    code = provider.answer(await browser.submit(decision="allow"))["code"]
    asked = urlencode({"client": "portal", "scope": "orders:write", "resource": ORDERS})
    await browser.open(f"/account/apps/allow?{asked}")
    assert "Allowed" in (await browser.submit(decision="allow")).text
    form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    token = (await provider.token(auth, grant_type="authorization_code", **form)).json()["access_token"]
    assert (await delegating.ask(token, auth, scope="orders:read")).json()["error"] == "consent_required"
    page = await provider.authorize(browser, **request | {"scope": f"{request['scope']} offline_access"})
    assert "Allow access?" in page.text
    assert "code" in provider.answer(await provider.authorize(browser, **request)), "that is remembered as it was"


def with_orders(client):
    return replace(client, scopes=client.scopes | {"orders:read"})


async def test_a_service_of_ones_own_acts_at_another_for_whoever_called_it(delegating_on_both):
    """RFC 8693 section 1: what was called for a person calls the next; the other service and the person let it."""
    delegating, provider, back = delegating_on_both, delegating_on_both.provider, "https://portal.example/back"
    await delegating.make_resource()
    await delegating.make_resource("stock", STOCK, actors=())
    auth = await provider.add_client(id="portal", name="Portal", redirect_uris=(back,), consent="never")
    await provider.service.database.transact(clients.change, "portal", with_orders, provider.actor())
    asked = {"client_id": "portal", "redirect_uri": back, "scope": "orders:read", "resource": ORDERS}
    code = await provider.sign_in_for_code(**asked)
    form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    token = (await provider.token(auth, grant_type="authorization_code", **form)).json()["access_token"]
    orders = Delegations(provider.service.issuer.url, "orders", client_secret=lambda: "secret", http=provider.http)
    token_for_stock = runpy.run_path(str(EXAMPLES / "ask_stock.py"))["token_for_stock"]

    with pytest.raises(DelegationRejected, match="name it in its 'actors'"):
        await token_for_stock(orders, token)
    await delegating.change_resource("stock", actors=frozenset(("orders",)))
    with pytest.raises(ConsentNeeded) as needed:
        await token_for_stock(orders, token)
    allowing, browser = urlsplit(needed.value.consent_uri), await provider.browser()
    await browser.sign_in("ada", at=f"{allowing.path}?{allowing.query}")
    assert "See your stock" in browser.page.text
    await browser.submit(decision="allow")
    acting = await token_for_stock(orders, token)
    told = (await provider.post("/oauth2/introspect", {"token": acting}, ("stock", "secret"))).json()
    assert (told["sub"], told["aud"], told["scope"]) == (await delegating.subject(), STOCK, "stock:read")
    assert (told["act"], told["client_id"]) == ({"sub": "orders"}, "orders")

    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    assert (await provider.http.delete("/v1/admin/resources/orders", headers=admin)).status_code == 204
    over = await provider.post("/oauth2/introspect", {"token": acting}, ("stock", "secret"))
    assert over.json() == {"active": False}


async def test_services_from_before_they_could_act_can_after_the_next_start(delegating_on_both):
    delegating, provider = delegating_on_both, delegating_on_both.provider
    service, app = provider.service, provider.settings.app_url
    await delegating.make_resource()
    as_before = update(client_table).where(client_table.c.id == "orders").values(grant_types='["client_credentials"]')
    await service.database.transact(lambda connection: connection.execute(as_before) and None)
    await service.database.transact(definitions.put_built_in, service.issuer.url, app, provider.actor().at)
    await delegating.make_resource("stock", STOCK, actors=("orders",))


async def test_it_is_told_when_it_is_given_used_for_the_first_time_and_withdrawn(delegating_on_both):
    delegating, provider = delegating_on_both, delegating_on_both.provider
    delegation = await delegating.given()
    for _ in range(2):
        assert (await delegating.use(delegation)).status_code == 200
    await provider.post("/oauth2/revoke", {"token": delegation}, delegating.app())
    events = await delegating.events(3, *DELEGATION_EVENTS)
    assert [event.type.rpartition(".")[2] for event in events] == [
        "delegated",
        "delegation-used",
        "delegation-withdrawn",
    ]
    ada = await delegating.subject()
    assert {event.data["user"] for event in events} == {event.subject for event in events} == {ada}
    assert {event.data["delegation"] for event in events} == {delegation}
    assert events[0].data["purpose"] == "Run 42 of the workflow report"
    assert events[2].data["why"] == "no longer needed"
    told = await delegating.events(1, "evs.token.issued")
    issued = [event.data for event in told if event.data["audience"] == ORDERS]
    assert [(data["actor"], data["user"]) for data in issued] == [("evs-app", ada)] * 2


async def test_no_token_of_it_is_wider_than_what_was_given(delegating):
    delegation = await delegating.given()
    assert (await delegating.use(delegation, scope="orders:write")).json()["error"] == "invalid_scope"
    assert (await delegating.use(delegation, scope="workflows:read")).json()["error"] == "invalid_scope"
    assert (await delegating.use(delegation, resource=APP)).json()["error"] == "invalid_target"
    assert (await delegating.use(delegation, requested_token_type=DELEGATION)).json()["error"] == "invalid_request"


async def test_the_id_is_worth_nothing_to_anybody_else(delegating):
    delegation = await delegating.given()
    provider = delegating.provider
    other = await provider.add_client(
        id="other", name="Other", grant_types=(EXCHANGE,), scopes=frozenset(("workflows:read",))
    )
    assert (await delegating.use(delegation, auth=other)).json()["delegation_state"] == "unknown"
    assert (await delegating.use(delegation, auth=("evs-app", "guessed"))).json()["error"] == "invalid_client"
    assert (await provider.post("/oauth2/revoke", {"token": delegation}, other)).json()["error"] == "invalid_grant"
    assert (await delegating.use(delegation)).status_code == 200


async def test_one_delegation_serves_several_resources_each_with_its_own_token(delegating):
    await delegating.make_resource()
    await delegating.make_resource("stock", STOCK)
    await delegating.allow()
    await delegating.allow("stock:read", STOCK)
    token = (await delegating.provider.tokens())["access_token"]
    answer = await delegating.ask(token, resources=(ORDERS, STOCK), scope="orders:read stock:read")
    delegation = answer.json()["access_token"]
    assert (await delegating.use(delegation, resource=ORDERS)).json()["scope"] == "orders:read"
    assert (await delegating.use(delegation, resource=STOCK)).json()["scope"] == "stock:read"
    crossed = await delegating.use(delegation, resource=STOCK, scope="orders:read")
    assert crossed.json()["error"] == "invalid_scope"


ENDINGS = {
    "withdrawn app": lambda ada: (connected_apps.withdraw, ada, "evs-app"),
    "disabled": lambda ada: (accounts.disable, ada),
    "new password": lambda ada: (accounts.set_password, ada, "a hash"),
    "signed out everywhere": lambda ada: (account_changes.end_sessions, ada),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_it_ends_with_what_it_came_from(delegating_on_both, ending):
    delegating, provider = delegating_on_both, delegating_on_both.provider
    delegation = await delegating.given()
    acting = (await delegating.use(delegation)).json()["access_token"]
    await provider.service.database.transact(*ENDINGS[ending](await delegating.subject()), provider.actor())
    over = (await delegating.use(delegation)).json()
    assert over["error"] == "invalid_request"
    assert over["delegation_state"] == ("person" if ending == "disabled" else "withdrawn")
    told = await provider.post("/oauth2/introspect", {"token": acting}, ("orders", "secret"))
    assert told.json() == {"active": False}
    assert len(await delegating.events(1, "evs.grant.delegation-withdrawn")) == 1


async def test_what_is_withdrawn_while_it_is_asked_for_is_not_given(delegating_on_both, monkeypatch):
    delegating, provider = delegating_on_both, delegating_on_both.provider
    await delegating.make_resource()
    await delegating.allow()
    ada, commit = await delegating.subject(), token_endpoint.commit

    async def withdraw_first(service, *rest):
        await provider.service.database.transact(connected_apps.withdraw, ada, "evs-app", provider.actor())
        return await commit(service, *rest)

    token = (await provider.tokens())["access_token"]
    monkeypatch.setattr(token_endpoint, "commit", withdraw_first)
    assert (await delegating.ask(token)).json()["error"] == "invalid_request"
    assert await provider.service.database.read(delegations.alive_of_user, ada, 0) == []


async def test_nothing_is_allowed_in_a_session_that_has_ended_meanwhile(delegating_on_both, monkeypatch):
    """Or whoever is put out by a new password keeps a form in hand with which a program of theirs is allowed all."""
    delegating, provider = delegating_on_both, delegating_on_both.provider
    await delegating.make_resource()
    refused = (await delegating.ask((await provider.tokens())["access_token"])).json()
    allowing = urlsplit(refused["consent_uri"])
    browser = await provider.browser()
    await browser.sign_in("ada", at=f"{allowing.path}?{allowing.query}")
    ada = await provider.service.database.read(accounts.find_by_username, "ada")
    kept = provider.service.passwords.hash_now("a quite different phrase")
    transact, waiting = provider.service.database.transact, [(accounts.set_password, ada.id, kept, provider.actor())]

    async def transact_once_changed(function, *args):
        if waiting and function is in_session:
            await transact(*waiting.pop())
        return await transact(function, *args)

    monkeypatch.setattr(provider.service.database, "transact", transact_once_changed)
    assert (await browser.submit(decision="allow")).status_code == 403
    assert await provider.service.database.read(consents.of_user, ada.id) == []


async def test_a_withdrawn_app_must_be_allowed_again(delegating):
    await delegating.given()
    provider = delegating.provider
    ada = await delegating.subject()
    await provider.service.database.transact(connected_apps.withdraw, ada, "evs-app", provider.actor())
    token = (await provider.tokens())["access_token"]
    assert (await delegating.ask(token)).json()["error"] == "consent_required"


async def test_ending_one_session_ends_no_delegation(delegating):
    delegation = await delegating.given()
    browser = await delegating.provider.browser()
    await browser.sign_in("ada", at="/account")
    await browser.submit(action="/account/sign-out")
    assert (await delegating.use(delegation)).status_code == 200


async def test_what_a_person_may_do_is_looked_up_for_each_token(delegating):
    delegation = await delegating.given()
    provider = delegating.provider
    await provider.service.database.transact(
        accounts.set_roles, await delegating.subject(), frozenset(("operator",)), provider.actor()
    )
    acting = (await delegating.use(delegation)).json()["access_token"]
    told = (await provider.post("/oauth2/introspect", {"token": acting}, ("orders", "secret"))).json()
    assert told["roles"] == ["member", "operator"]


async def test_a_role_that_takes_two_factors_is_in_no_token_of_a_sign_in_with_one(run_provider, tmp_path, sqlite_url):
    async with run_provider(tmp_path, sqlite_url, require_second_factor=["operator"]) as provider:
        await provider.add_user("ada")
        delegating = Delegating(provider)
        delegation, ada = await delegating.given(), await delegating.subject()
        transact, actor = provider.service.database.transact, provider.actor()
        await transact(accounts.set_roles, ada, frozenset(("operator",)), actor)
        assert (await delegating.use(delegation)).json()["delegation_state"] == "person"
        await transact(accounts.set_roles, ada, frozenset(), actor)
        assert (await delegating.use(delegation)).status_code == 200


async def test_it_ends_by_itself(delegating, monkeypatch):
    delegation = await delegating.given(delegation_seconds="600")
    clock = delegating.provider.service.clock
    now = clock.micros()
    monkeypatch.setattr(type(clock), "micros", lambda _: now + 590 * 1_000_000)
    assert (await delegating.use(delegation)).json()["expires_in"] <= 10
    monkeypatch.setattr(type(clock), "micros", lambda _: now + 601 * 1_000_000)
    assert (await delegating.use(delegation)).json()["delegation_state"] == "expired"


async def test_the_pruner_keeps_it_as_long_as_it_lasts_and_no_longer(delegating):
    await delegating.given()
    database, now = delegating.provider.service.database, delegating.provider.service.clock.micros()

    def families(connection):
        query = select(family_table.c.id).join(delegation_table)
        return connection.scalars(query).all()

    await database.transact(prune, now + 48 * HOUR)
    assert len(await database.read(families)) == 1
    await database.transact(prune, now + 8 * 24 * HOUR)
    assert await database.read(families) == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": ...}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"scope": "unknown"}, "invalid_scope"),
        ({"scope": "orders:read admin"}, "invalid_scope"),
        ({"resources": ("https://elsewhere.example",)}, "invalid_target"),
        ({"token": "garbled"}, "invalid_request"),
        ({"delegation_seconds": "0"}, "invalid_request"),
        ({"delegation_seconds": "7776001"}, "invalid_request"),
        ({"delegation_seconds": "-1"}, "invalid_request"),
        ({"delegation_seconds": "٣"}, "invalid_request"),
        ({"scope": "orders:write"}, "consent_required"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(delegating, changes, error):
    await delegating.make_resource()
    await delegating.allow()
    token = (await delegating.provider.tokens())["access_token"]
    answer = await delegating.ask(**({"token": token} | changes))
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_resource_decides_which_clients_act_for_people_there(delegating):
    await delegating.make_resource(actors=())
    refused = await delegating.provider.browser()
    await refused.sign_in("ada", at=f"/account/apps/allow?client=evs-app&scope=orders:read&resource={ORDERS}")
    assert refused.page.status_code == 400
    token = (await delegating.provider.tokens())["access_token"]
    assert (await delegating.ask(token)).json()["error"] == "invalid_target"
    await delegating.change_resource(actors=frozenset(("evs-app",)))
    await delegating.allow()
    delegation = (await delegating.ask(token)).json()["access_token"]
    await delegating.change_resource(actors=frozenset())
    assert (await delegating.use(delegation)).json()["error"] == "invalid_target"


async def test_only_clients_that_can_exchange_are_actors_and_only_at_resources_of_ones_own(delegating):
    provider = delegating.provider
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    body = {
        "id": "orders",
        "identifier": ORDERS,
        "name": "Orders",
        "scopes": {"orders:read": "See"},
        "actors": ["evs-gui"],
    }
    answer = await provider.http.post("/v1/admin/resources", json=body, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/actors")
    made = await provider.http.post("/v1/admin/resources", json=body | {"actors": ["evs-app"]}, headers=headers)
    assert made.json()["actors"] == ["evs-app"]
    admin = await provider.http.patch("/v1/admin/resources/admin", json={"actors": ["evs-app"]}, headers=headers)
    assert admin.status_code == 422


async def test_nothing_is_given_for_the_admin_api(delegating):
    provider = delegating.provider
    token = (await provider.tokens("admin"))["access_token"]
    admin = f"{provider.settings.auth_url}/v1/admin"
    assert (await delegating.ask(token, scope="admin", resources=(admin,))).json()["error"] == "invalid_target"


async def test_at_the_appservice_it_is_no_more_than_the_token(delegating):
    provider = delegating.provider
    token = (await provider.tokens(scope="openid workflows:read"))["access_token"]
    await delegating.allow("workflows:read workflows:run", APP)
    grown = await delegating.ask(token, scope="workflows:run", resources=(APP,))
    assert grown.json()["error"] == "invalid_scope"
    assert (await delegating.ask(token, scope="workflows:read", resources=(APP,))).status_code == 200
    decide = await delegating.ask(token, scope="approvals:decide", resources=(APP,))
    assert decide.json()["error"] == "invalid_target"


async def test_who_acts_for_a_person_cannot_give_itself_more_time(delegating):
    provider = delegating.provider
    await delegating.allow("workflows:run", APP)
    token = (await provider.tokens())["access_token"]
    delegation = (await delegating.ask(token, scope="workflows:run", resources=(APP,))).json()["access_token"]
    acting = (await delegating.use(delegation)).json()["access_token"]
    again = await delegating.ask(acting, scope="workflows:run", resources=(APP,))
    assert again.json()["error"] == "unauthorized_client"


async def test_a_service_has_nobody_to_act_for(delegating):
    await delegating.make_resource()
    provider = delegating.provider
    machine = await provider.token(("evs-local", provider.secret_of("evs-local")), grant_type="client_credentials")
    assert (await delegating.ask(machine.json()["access_token"])).json()["error"] == "invalid_request"


async def test_actors_of_a_resource_travel_with_an_export_also_those_that_come_with_it(
    delegating, run_provider, tmp_path
):
    provider = delegating.provider
    await provider.add_client(id="reports", name="Reports", grant_types=(EXCHANGE,))
    await delegating.make_resource(actors=("evs-app", "reports"))
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    document = (await provider.http.get("/v1/admin/export", headers=headers)).json()
    (item,) = [item for item in document["resources"] if item["id"] == "orders"]
    assert item["actors"] == ["evs-app", "reports"]

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with run_provider(elsewhere, f"sqlite:///{elsewhere}/test.db") as other:
        headers = {"authorization": f"Bearer {await other.admin_token()}"}
        report = await other.http.post("/v1/admin/import", json=document, headers=headers)
        assert report.json()["counts"]["refused"] == 0, report.text
        shown = (await other.http.get("/v1/admin/resources/orders", headers=headers)).json()
        assert shown["actors"] == ["evs-app", "reports"]
        again = (await other.http.post("/v1/admin/import", json=document, headers=headers)).json()
        assert {item["outcome"] for item in again["items"] if item["kind"] == "resource"} == {"unchanged"}
        del document["clients"]
        item["actors"] = ["nobody"]
        alone = (await other.http.post("/v1/admin/import", json=document, headers=headers)).json()
        (refused,) = [item for item in alone["items"] if item["outcome"] == "refused"]
        assert refused["why"].startswith("actors: ")


ENDS = {
    "signed out everywhere": account_changes.end_sessions,
    "disabled": accounts.disable,
    "a new password": lambda connection, who, actor: accounts.set_password(connection, who, "hash", actor),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_none_is_given_while_everything_of_its_person_ends(
    provider_on_postgresql, as_stranger, wait_for_locks, end
):
    """It comes of a token that outlives sessions, and is written when what there is to end was looked for already."""
    provider, delegating, back = provider_on_postgresql, Delegating(provider_on_postgresql), "https://desk.example/back"
    database, ada, scope = provider.service.database, await delegating.subject(), "openid offline_access workflows:run"
    desk = {"id": "desk", "name": "Desk", "redirect_uris": (back,), "consent": "never"}
    auth = await provider.add_client(**desk, scopes=frozenset(scope.split()))
    await delegating.make_resource()
    await delegating.allow()
    code = await provider.sign_in_for_code(client_id="desk", redirect_uri=back, scope=scope)
    form = {"code": code, "redirect_uri": back, "code_verifier": provider.verifier}
    token = (await provider.token(auth, grant_type="authorization_code", **form)).json()["access_token"]
    async with as_stranger() as stranger:
        async with stranger.transaction():
            await stranger.execute("SELECT * FROM consents FOR UPDATE")
            given = asyncio.create_task(delegating.ask(token))
            await wait_for_locks(1)
            ended = asyncio.create_task(database.transact(end, ada, provider.actor()))
            await wait_for_locks(2)
        assert (await given).is_success
        await ended
    assert await database.read(delegations.alive_of_user, ada, provider.actor().at) == []
