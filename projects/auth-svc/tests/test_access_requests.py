"""Asking for a role: only the pending row and an entitled decider together make a grant; forgeries are recorded."""

import pytest

from auth_svc.people import access_requests, accounts, own_data
from auth_svc.people.access_requests import MAX_WAITING
from auth_svc.people.approvals import ApprovalDecided, ApprovalDecidedData, hear_decision
from auth_svc.pruner import KEEP_REQUEST_SECONDS, prune
from auth_svc.rights import roles as definitions
from auth_svc.rights.roles import Role
from lib_events.event import Event
from lib_events.testing import wait_until


@pytest.fixture
async def asked(provider_on_both):
    """ada has asked for the role operator."""
    provider = provider_on_both
    provider.ada = {"authorization": f"Bearer {(await provider.tokens())['access_token']}"}
    body = {"role": "operator", "reason": "I am on call"}
    made = await provider.http.post("/v1/access-requests", json=body, headers=provider.ada)
    assert made.status_code == 201, made.text
    told = (await wait_until(lambda: provider.events("evs.access.requested")))[0]
    provider.about = {name: told.data[name] for name in ("request", "user", "role", "nonce")}
    provider.admin_id = (await provider.introspect((await provider.tokens("admin"))["access_token"]))["sub"]
    return provider


async def decide(provider, *, source="/app-svc", approved=True, by=None, about=None, **more):
    data = ApprovalDecidedData(
        approval="approval-1",
        approved=approved,
        by=by or provider.admin_id,
        about=provider.about | (about or {}),
        **more,
    )
    event = Event.of(ApprovalDecided, data, source=source)
    await provider.service.database.transact(hear_decision, event)


async def status(provider):
    return (await provider.http.get("/v1/access-requests", headers=provider.ada)).json()["items"][0]


async def roles(provider):
    token = (await provider.tokens())["access_token"]
    return (await provider.introspect(token))["roles"]


async def audited(provider, what):
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    lines = (await provider.http.get("/v1/admin/audit", headers=admin)).json()["items"]
    return [line for line in lines if line["what"] == what]


async def test_an_approval_by_an_admin_grants_the_role(asked):
    await decide(asked)
    assert (await status(asked))["status"] == "granted"
    assert await roles(asked) == ["member", "operator"]
    granted = (await wait_until(lambda: asked.events("evs.access.granted")))[0]
    assert granted.data["request"] == asked.about["request"]
    assert granted.data["by"] == asked.admin_id
    assert await audited(asked, "access.granted")


async def test_a_rejection_grants_nothing(asked):
    await decide(asked, approved=False, comment="not this week")
    shown = await status(asked)
    assert (shown["status"], shown["why"]) == ("refused", "not this week")
    assert await roles(asked) == ["member"]
    assert await wait_until(lambda: asked.events("evs.access.refused"))


async def test_a_forged_decision_grants_nothing_and_is_audited(asked, subtests):
    forgeries = (
        {"nonce": "guessed"},
        {"role": "admin"},
        {"role": "auditor"},
        {"user": "somebody-else"},
        {"request": "another"},
    )
    for number, about in enumerate(forgeries, start=1):
        with subtests.test(about=about):
            await decide(asked, about=about)
            assert (await status(asked))["status"] == "pending"
            assert await roles(asked) == ["member"]
            assert len(await audited(asked, "access.forged")) == number
            assert len(await asked.events("evs.access.refused")) == number
    await decide(asked)  # the true decision still counts
    assert (await status(asked))["status"] == "granted"


async def test_only_the_appservice_is_believed(asked):
    await decide(asked, source="/auth-svc")
    await decide(asked, source="/shop")
    assert (await status(asked))["status"] == "pending"


async def test_who_is_not_there_decides_nothing(asked):
    """Whoever has left since, or never was: what they say is no reason to stop listening."""
    await decide(asked, by="nobody-at-all")
    assert (await status(asked))["why"] == "the decider does not hold the role admin"
    assert await roles(asked) == ["member"]


async def test_nobody_decides_about_themselves_or_without_the_role(asked):
    await decide(asked, by=asked.about["user"])
    assert (await status(asked))["status"] == "refused"
    assert await roles(asked) == ["member"]


async def test_an_admin_cannot_grant_their_own_request(provider):
    await provider.add_user("boss", "admin")
    headers = {"authorization": f"Bearer {(await provider.tokens('boss'))['access_token']}"}
    made = await provider.http.post("/v1/access-requests", json={"role": "auditor", "reason": "x"}, headers=headers)
    assert made.status_code == 201
    provider.ada = headers
    told = (await wait_until(lambda: provider.events("evs.access.requested")))[0]
    provider.about = {name: told.data[name] for name in ("request", "user", "role", "nonce")}
    await decide(provider, by=told.data["user"])
    assert (await status(provider))["status"] == "refused"


async def test_a_decision_counts_once(asked):
    await decide(asked, approved=False)
    await decide(asked)
    assert (await status(asked))["status"] == "refused"
    assert await roles(asked) == ["member"]


async def test_some_roles_cannot_be_asked_for(asked, subtests):
    for role, code in (("admin", 422), ("No Role", 422), ("member", 409), ("operator", 409)):
        with subtests.test(role=role):
            body = {"role": role, "reason": "please"}
            refused = await asked.http.post("/v1/access-requests", json=body, headers=asked.ada)
            assert refused.status_code == code
            assert refused.headers["content-type"] == "application/problem+json"


async def test_no_role_that_includes_admin_is_had_by_asking(asked, subtests):
    database, actor = asked.service.database, asked.actor()
    await database.transact(definitions.create, Role(name="chief", includes=frozenset(("admin",))), actor)
    with subtests.test("asked for"):
        body = {"role": "chief", "reason": "please"}
        assert (await asked.http.post("/v1/access-requests", json=body, headers=asked.ada)).status_code == 422
    with subtests.test("that came to include it while it was waiting"):
        body = {"role": "helper", "reason": "please"}
        assert (await asked.http.post("/v1/access-requests", json=body, headers=asked.ada)).status_code == 201
        told = await wait_until(lambda: second_request(asked))
        asked.about = {name: told.data[name] for name in ("request", "user", "role", "nonce")}
        await database.transact(definitions.create, Role(name="helper", includes=frozenset(("chief",))), actor)
        await decide(asked)
        shown = await status(asked)
        assert (shown["role"], shown["status"]) == ("helper", "refused")
        assert await roles(asked) == ["member"]


async def test_a_role_that_nobody_has_described_is_not_granted(asked):
    """Whoever held it would have whatever an administrator makes of it later."""
    body = {"role": "helper", "reason": "please"}
    assert (await asked.http.post("/v1/access-requests", json=body, headers=asked.ada)).status_code == 201
    told = await wait_until(lambda: second_request(asked))
    asked.about = {name: told.data[name] for name in ("request", "user", "role", "nonce")}
    await decide(asked)
    shown = await status(asked)
    assert shown["status"] == "refused"
    assert "evs admin role create helper" in shown["why"]
    assert await roles(asked) == ["member"]


async def test_nothing_is_granted_to_somebody_who_has_left(asked, subtests):
    database, actor = asked.service.database, asked.actor()
    with subtests.test("disabled"):
        await database.transact(accounts.disable, asked.about["user"], actor)
        await decide(asked)
        refused = (await wait_until(lambda: asked.events("evs.access.refused")))[-1]
        assert refused.data["why"] == "the asker cannot sign in any more"
    await database.transact(accounts.enable, asked.about["user"], actor)
    with subtests.test("deleted"):
        again = await database.transact(access_requests.ask, asked.about["user"], "operator", "please", actor)
        asked.about |= {"request": again.id, "nonce": again.nonce}
        await database.transact(own_data.delete_account, asked.about["user"], actor)
        await decide(asked)

        async def both():
            events = await asked.events("evs.access.refused")
            return events if len(events) == 2 else None

        assert (await wait_until(both))[-1].data["why"] == "the asker cannot sign in any more"
    assert await asked.events("evs.access.granted") == []


async def second_request(provider):
    events = await provider.events("evs.access.requested")
    return events[1] if len(events) > 1 else None


async def test_one_sees_only_ones_own_requests_and_never_the_nonce(asked):
    await asked.add_user("grace")
    graces = {"authorization": f"Bearer {(await asked.tokens('grace'))['access_token']}"}
    assert (await asked.http.get("/v1/access-requests", headers=graces)).json()["items"] == []
    shown = await asked.http.get("/v1/access-requests", headers=asked.ada)
    assert asked.about["nonce"] not in shown.text


async def test_programs_cannot_ask(provider):
    local = ("evs-local", provider.secret_of("evs-local"))
    token = (await provider.token(local, grant_type="client_credentials")).json()["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    refused = await provider.http.post("/v1/access-requests", json={"role": "auditor", "reason": "x"}, headers=headers)
    assert refused.status_code == 403


async def test_nobody_floods_the_approvers(provider_on_both):
    provider = provider_on_both
    headers = {"authorization": f"Bearer {(await provider.tokens())['access_token']}"}
    for number in range(MAX_WAITING):
        body = {"role": f"role-{number}", "reason": "x"}
        assert (await provider.http.post("/v1/access-requests", json=body, headers=headers)).status_code == 201
    body = {"role": "one-more", "reason": "x"}
    refused = await provider.http.post("/v1/access-requests", json=body, headers=headers)
    assert refused.status_code == 409
    assert f"{MAX_WAITING} of your requests wait" in refused.json()["detail"]


async def test_a_client_needs_the_scope_to_ask_and_to_look(provider):
    for scope, asking, looking in (("openid", 403, 403), ("workflows:read", 403, 200), ("workflows:run", 201, 403)):
        token = (await provider.tokens(scope=scope))["access_token"]
        headers = {"authorization": f"Bearer {token}"}
        body = {"role": "operator", "reason": "x"}
        asked = await provider.http.post("/v1/access-requests", json=body, headers=headers)
        looked = await provider.http.get("/v1/access-requests", headers=headers)
        assert (asked.status_code, looked.status_code) == (asking, looking), scope


async def test_a_request_is_forgotten_in_the_end_and_a_decision_about_it_grants_nothing(asked):
    day, database = 24 * 3600 * 1_000_000, asked.service.database
    gone = asked.actor().at + KEEP_REQUEST_SECONDS * 1_000_000
    await database.transact(prune, gone - day)
    assert len(await database.read(access_requests.of_user, asked.about["user"])) == 1
    await database.transact(prune, gone + day)
    assert await database.read(access_requests.of_user, asked.about["user"]) == []
    await decide(asked)
    assert await roles(asked) == ["member"]
