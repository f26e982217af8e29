"""What acts for people, as they and administrators see it, allow it and end it."""

from urllib.parse import urlencode

import pytest
from delegating_app import ORDERS


async def test_people_see_what_acts_for_them_and_stop_it(delegating):
    delegation = await delegating.given()
    browser = await delegating.provider.browser()
    page = await browser.sign_in("ada", at="/account/apps")
    assert "Run 42 of the workflow report" in page.text
    assert "AppService at https://orders.example" in page.text
    assert "See your orders" in page.text
    page = await browser.submit(action="/account/apps/end-delegation")
    assert "Run 42" not in page.text
    assert (await delegating.use(delegation)).json()["delegation_state"] == "withdrawn"


async def test_nobody_stops_what_acts_for_somebody_else(delegating):
    delegation = await delegating.given()
    await delegating.provider.add_user("eve")
    token = (await delegating.provider.tokens("eve"))["access_token"]
    await delegating.allow(username="eve")
    assert (await delegating.ask(token)).status_code == 200
    browser = await delegating.provider.browser()
    await browser.sign_in("eve", at="/account/apps")
    await browser.submit(action="/account/apps/end-delegation", delegation=delegation)
    assert (await delegating.use(delegation)).status_code == 200


async def test_administrators_see_and_end_what_acts_for_a_person(delegating):
    delegation = await delegating.given()
    provider = delegating.provider
    headers = {"authorization": f"Bearer {await provider.admin_token()}"}
    path = "/v1/admin/users/ada/delegations"
    (item,) = (await provider.http.get(path, headers=headers)).json()["items"]
    assert (item["id"], item["client"], item["scopes"]) == (delegation, "evs-app", ["orders:read"])
    assert (await provider.http.delete(f"{path}/{delegation}", headers=headers)).status_code == 204
    assert (await provider.http.delete(f"{path}/{delegation}", headers=headers)).status_code == 404
    assert (await provider.http.get(path, headers=headers)).json()["items"] == []
    assert (await delegating.use(delegation)).json()["delegation_state"] == "withdrawn"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"client": "evs-gui"}, "client"),
        ({"client": "nobody"}, "client"),
        ({"scope": "unknown"}, "resource"),
        ({"scope": "orders:read admin"}, "scope"),
        ({"resource": "https://elsewhere.example"}, "resource"),
        ({"resource": ""}, "scope"),
    ],
    ids=str,
)
async def test_a_question_that_makes_no_sense_is_not_asked(delegating, query, code):
    await delegating.make_resource()
    browser = await delegating.provider.browser()
    asked = {"client": "evs-app", "scope": "orders:read", "resource": ORDERS} | query
    page = await browser.sign_in("ada", at=f"/account/apps/allow?{urlencode(asked)}")
    assert (page.status_code, code in page.text) == (400, True)


async def test_what_was_cancelled_was_not_allowed(delegating):
    await delegating.make_resource()
    browser = await delegating.provider.browser()
    await browser.sign_in("ada", at=f"/account/apps/allow?client=evs-app&scope=orders:read&resource={ORDERS}")
    await browser.submit(decision="deny")
    token = (await delegating.provider.tokens())["access_token"]
    assert (await delegating.ask(token)).json()["error"] == "consent_required"
