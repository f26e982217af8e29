"""Refresh, client credentials, revocation and introspection: what tokens become and how they end."""

import asyncio

import pytest
from sqlalchemy import update

from auth_svc.clients.client import ClientRejected
from auth_svc.composition import events_to_keep
from auth_svc.people import accounts
from auth_svc.protocol import effects
from auth_svc.pruner import prune
from auth_svc.tables import refresh_tokens, sessions
from lib_events.event_log import head
from lib_events.log.retention import Retention
from lib_events.tables import event_log_state, subscription_cursors
from lib_events.testing import wait_until

APP = "http://127.0.0.1:8002"
ADMIN = "http://127.0.0.1:8001/v1/admin"
ASKER, OTHER = "asker-" + "1" * 16, "asker-" + "2" * 16


async def test_a_refresh_token_brings_new_tokens_and_is_used_up(provider_on_both):
    provider = provider_on_both
    first = await provider.tokens()
    second = (await provider.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert second["scope"] == first["scope"]
    assert "id_token" in second


@pytest.fixture
async def strict(run_provider, tmp_path, database_url):
    """An AuthService that gives no second chance, on both databases."""
    async with run_provider(tmp_path, database_url, refresh_grace_seconds=0) as running:
        await running.add_user("ada")
        yield running


async def test_using_a_refresh_token_twice_ends_the_family(strict):
    first = await strict.tokens()
    second = (await strict.refresh(first["refresh_token"])).json()
    assert (await strict.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await strict.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert not (await strict.introspect(second["access_token"]))["active"]


async def test_of_twenty_who_race_for_a_refresh_token_one_wins(strict):
    tokens = await strict.tokens()
    answers = await asyncio.gather(*(strict.refresh(tokens["refresh_token"]) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert {answer.json()["error"] for answer in answers if answer.status_code == 400} == {"invalid_grant"}


async def test_twenty_tabs_that_refresh_at_once_are_told_the_same_successor(provider_on_both):
    provider = provider_on_both
    tokens = await provider.tokens()
    answers = await asyncio.gather(*(provider.refresh(tokens["refresh_token"]) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    (successor,) = {answer.json()["refresh_token"] for answer in answers}
    after = await provider.refresh(successor)
    assert after.status_code == 200


async def test_a_refresh_token_whose_successor_was_used_ends_the_family(provider_on_both):
    provider = provider_on_both
    first = await provider.tokens()
    second = (await provider.refresh(first["refresh_token"])).json()
    third = (await provider.refresh(second["refresh_token"])).json()
    assert (await provider.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await provider.refresh(third["refresh_token"])).json()["error"] == "invalid_grant"


async def age(provider, seconds):
    """Let the refresh tokens that were used have been used earlier."""
    earlier = update(refresh_tokens).values(used_at=refresh_tokens.c.used_at - seconds * 1_000_000)
    await provider.service.database.transact(lambda connection: connection.execute(earlier) and None)


async def test_whoever_asks_again_as_the_same_is_told_the_lost_answer_however_late(provider_on_both):
    provider = provider_on_both
    first = await provider.tokens()
    lost = (await provider.refresh(first["refresh_token"], as_asker=ASKER)).json()
    await age(provider, 24 * 3600)
    again = (await provider.refresh(first["refresh_token"], as_asker=ASKER)).json()
    assert again["refresh_token"] == lost["refresh_token"]
    assert (await provider.introspect(again["access_token"]))["active"]
    assert (await provider.refresh(again["refresh_token"], as_asker=OTHER)).status_code == 200
    refused = await provider.refresh(first["refresh_token"], as_asker=ASKER)
    assert refused.json()["error"] == "invalid_grant", "what followed was used, so the answer was not lost"
    assert not (await provider.introspect(again["access_token"]))["active"]


@pytest.mark.parametrize("asker", ["", OTHER])
@pytest.mark.parametrize("seconds", [11, -3_600], ids=["later", "set-back"])
async def test_whoever_asks_again_as_another_is_a_thief_after_the_grace(provider, asker, seconds):
    first = await provider.tokens()
    second = (await provider.refresh(first["refresh_token"], as_asker=ASKER)).json()
    await age(provider, seconds)
    refused = await provider.refresh(first["refresh_token"], as_asker=asker)
    assert refused.json()["error"] == "invalid_grant"
    assert not (await provider.introspect(second["access_token"]))["active"]


async def test_a_word_that_could_be_guessed_is_none(provider):
    first = await provider.tokens()
    assert (await provider.refresh(first["refresh_token"], as_asker="again")).status_code == 200
    await age(provider, 11)
    assert (await provider.refresh(first["refresh_token"], as_asker="again")).json()["error"] == "invalid_grant"


async def test_a_question_that_waited_for_its_own_first_is_no_thief(provider):
    first = await provider.tokens()
    commit, moments = effects.commit, iter((0, 60_000_000))
    with pytest.MonkeyPatch.context() as patch:  # the second was read before the first was written, a minute ago
        patch.setattr(
            effects, "commit", lambda connection, wanted, now: commit(connection, wanted, now + next(moments, 0))
        )
        answers = await asyncio.gather(*(provider.refresh(first["refresh_token"], as_asker=ASKER) for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_without_a_grace_nobody_is_told_anything_again(strict):
    first = await strict.tokens()
    assert (await strict.refresh(first["refresh_token"], as_asker=ASKER)).status_code == 200
    again = await strict.refresh(first["refresh_token"], as_asker=ASKER)
    assert again.json()["error"] == "invalid_grant"


async def test_a_full_disk_is_told_and_the_refresh_token_is_still_good(provider):
    raw = provider.service.database._raw
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    tokens = await provider.tokens()
    raw.execute(f"PRAGMA max_page_count = {pages}")
    answer = await provider.refresh(tokens["refresh_token"])
    while answer.status_code == 200:  # until the free pages are used up
        tokens = answer.json()
        answer = await provider.refresh(tokens["refresh_token"])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "full" in answer.json()["detail"]
    raw.execute("PRAGMA max_page_count = 1000000")
    assert (await provider.refresh(tokens["refresh_token"])).status_code == 200


async def test_a_refresh_may_ask_for_less_and_never_for_more(provider):
    tokens = await provider.tokens()
    less = (await provider.refresh(tokens["refresh_token"], scope="workflows:read")).json()
    assert less["scope"] == "workflows:read"
    more = await provider.refresh(less["refresh_token"], scope="workflows:read workflows:manage")
    assert more.json()["error"] == "invalid_scope"
    whole = (await provider.refresh(less["refresh_token"])).json()  # narrower tokens do not narrow the grant
    assert whole["scope"] == tokens["scope"]


async def test_a_refresh_token_belongs_to_its_client(provider):
    tokens = await provider.tokens()
    other = await provider.add_client(id="other", name="Other", redirect_uris=("https://other.test/cb",))
    refused = await provider.token(other, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refused.json()["error"] == "invalid_grant"
    assert (await provider.refresh(tokens["refresh_token"])).status_code == 200


async def test_roles_are_counted_anew_at_each_refresh(provider):
    tokens = await provider.tokens()
    user = (await provider.introspect(tokens["access_token"]))["sub"]
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    await provider.http.put(f"/v1/admin/users/{user}/roles", json={"roles": ["operator"]}, headers=admin)
    tokens = (await provider.refresh(tokens["refresh_token"])).json()
    assert (await provider.introspect(tokens["access_token"]))["roles"] == ["member", "operator"]
    await provider.http.put(f"/v1/admin/users/{user}/roles", json={"roles": []}, headers=admin)
    assert not (await provider.introspect(tokens["access_token"]))["active"]  # it says more than is true
    tokens = (await provider.refresh(tokens["refresh_token"])).json()
    assert (await provider.introspect(tokens["access_token"]))["roles"] == ["member"]


async def test_a_program_gets_a_token_of_its_own(provider_on_both):
    provider = provider_on_both
    local = ("evs-local", provider.secret_of("evs-local"))
    answer = (await provider.token(local, grant_type="client_credentials", scope="workflows:run events:read")).json()
    told = await provider.introspect(answer["access_token"])
    assert told["sub"] == told["client_id"] == "evs-local"
    assert told["roles"] == ["member", "operator"]
    assert told["scope"] == "events:read workflows:run"
    assert "refresh_token" not in answer
    issued = await wait_until(lambda: provider.events("evs.token.issued"))
    assert issued[0].data["client"] == "evs-local"
    assert answer["access_token"] not in issued[0].to_json().decode()


async def test_the_local_client_can_neither_administer_nor_approve(provider):
    local = ("evs-local", provider.secret_of("evs-local"))
    answer = (await provider.token(local, grant_type="client_credentials")).json()
    assert not {"admin", "approvals:decide"} & set(answer["scope"].split())
    for scope in ("admin", "approvals:decide"):
        refused = await provider.token(local, grant_type="client_credentials", scope=scope)
        assert refused.json()["error"] == "invalid_scope"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password", "username": "ada", "password": "x"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials", "resource": "https://elsewhere.test"}, "invalid_target"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "unauthorized_client"),
        ({"grant_type": "authorization_code", "code": "x"}, "unauthorized_client"),
    ],
)
async def test_a_wrong_token_request_is_told_why(provider, form, error):
    local = ("evs-local", provider.secret_of("evs-local"))
    refused = await provider.post("/oauth2/token", form, local)
    assert (refused.status_code, refused.json()["error"]) == (400, error)


async def test_the_token_endpoint_reads_strictly(provider):
    local = ("evs-local", provider.secret_of("evs-local"))
    grant = ("grant_type", "client_credentials")
    assert (await provider.post("/oauth2/token", [grant, grant], local)).json()["error"] == "invalid_request"
    resources = [grant, ("resource", APP), ("resource", ADMIN)]
    assert (await provider.post("/oauth2/token", resources, local)).json()["error"] == "invalid_target"
    assert (await provider.post("/oauth2/token", [grant, ("scope", "ümlaut")], local)).status_code == 400
    twice = [grant, ("client_id", local[0]), ("client_secret", local[1])]
    assert (await provider.post("/oauth2/token", twice, local)).json()["error"] == "invalid_request"
    headers = {"authorization": "Basic garbage", "content-type": "application/x-www-form-urlencoded"}
    refused = await provider.http.post("/oauth2/token", content="grant_type=client_credentials", headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    as_json = await provider.http.post("/oauth2/token", json={"grant_type": "client_credentials"}, auth=local)
    assert as_json.status_code == 415
    large = await provider.post("/oauth2/token", [grant, ("scope", "x" * 70_000)], local)
    assert large.status_code == 413


async def test_the_secret_may_come_in_the_body(provider):
    form = {"client_id": "evs-local", "client_secret": provider.secret_of("evs-local")}
    assert (await provider.token(None, grant_type="client_credentials", **form)).status_code == 200


async def test_revoking_a_refresh_token_ends_the_family(provider_on_both):
    provider = provider_on_both
    tokens = await provider.tokens()
    answer = await provider.post("/oauth2/revoke", {"token": tokens["refresh_token"]}, provider.gui())
    assert answer.status_code == 200
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_revoking_an_access_token_ends_only_it(provider_on_both):
    provider = provider_on_both
    tokens = await provider.tokens()
    for _ in range(2):  # again is as good
        answer = await provider.post("/oauth2/revoke", {"token": tokens["access_token"]}, provider.gui())
        assert answer.status_code == 200
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    assert (await provider.refresh(tokens["refresh_token"])).status_code == 200


async def test_a_revoked_access_token_stays_so_though_the_clock_was_ahead_for_an_hour(provider):
    tokens = await provider.tokens()
    await provider.post("/oauth2/revoke", {"token": tokens["access_token"]}, provider.gui())
    hour = 3_600 * 1_000_000
    await provider.service.database.transact(prune, provider.service.clock.micros() + hour)
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    app = ("evs-app", provider.secret_of("evs-app"))
    now = provider.service.clock.micros
    provider.service.clock.micros = lambda: now() + hour
    told = (await provider.http.get("/v1/revocations", auth=app)).json()["items"]
    assert [item["kind"] for item in told] == ["token"], "who asks meanwhile goes on behind it"


async def test_nobody_revokes_or_sees_the_tokens_of_others(provider):
    tokens = await provider.tokens()
    other = await provider.add_client(id="other", name="Other", redirect_uris=("https://other.test/cb",))
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert (await provider.post("/oauth2/revoke", {"token": token}, other)).json()["error"] == "invalid_grant"
        assert (await provider.post("/oauth2/introspect", {"token": token}, other)).json() == {"active": False}
    assert (await provider.introspect(tokens["access_token"]))["active"]


async def test_revoking_nonsense_is_fine_and_introspecting_it_says_nothing(provider):
    assert (await provider.post("/oauth2/revoke", {"token": "nonsense"}, provider.gui())).status_code == 200
    assert await provider.introspect("nonsense") == {"active": False}
    assert (await provider.post("/oauth2/introspect", {}, provider.gui())).json()["error"] == "invalid_request"


async def test_a_refresh_token_that_was_used_or_is_over_is_not_active(provider):
    tokens = await provider.tokens()

    async def is_active(token):
        told = await provider.post("/oauth2/introspect", {"token": token}, provider.gui())
        return told.json()["active"]

    assert await is_active(tokens["refresh_token"])
    successor = (await provider.refresh(tokens["refresh_token"])).json()["refresh_token"]
    assert [await is_active(token) for token in (tokens["refresh_token"], successor)] == [False, True]
    now = provider.service.clock.micros()

    def end(connection):
        connection.execute(update(refresh_tokens).values(expires_at=now))

    await provider.service.database.transact(end)
    assert not await is_active(successor)


async def test_strangers_may_not_introspect(provider):
    assert (await provider.post("/oauth2/introspect", {"token": "x"})).json()["error"] == "invalid_client"
    public = {"token": "x", "client_id": "evs-cli"}
    assert (await provider.post("/oauth2/introspect", public)).json()["error"] == "unauthorized_client"


async def test_userinfo_tells_what_the_scopes_allow(provider):
    tokens = await provider.tokens()
    for request in (
        provider.http.get("/oauth2/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"}),
        provider.http.post("/oauth2/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"}),
        provider.post("/oauth2/userinfo", {"access_token": tokens["access_token"]}),
    ):
        answer = await request
        assert answer.json()["preferred_username"] == "ada"
        assert "email" not in answer.json()
        assert answer.headers["cache-control"] == "no-store"
    without = await provider.http.get("/oauth2/userinfo")
    assert (without.status_code, without.headers["www-authenticate"]) == (401, "Bearer")
    garbled = await provider.http.get("/oauth2/userinfo", headers={"authorization": "Bearer garbled"})
    assert 'error="invalid_token"' in garbled.headers["www-authenticate"]


async def test_userinfo_needs_the_scope_openid(provider):
    tokens = await provider.tokens(scope="workflows:read")
    headers = {"authorization": f"Bearer {tokens['access_token']}"}
    refused = await provider.http.get("/oauth2/userinfo", headers=headers)
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert "id_token" not in tokens


async def test_revocations_are_told_after_a_cursor(provider_on_both):
    provider = provider_on_both
    app = ("evs-app", provider.secret_of("evs-app"))
    start = (await provider.http.get("/v1/revocations", auth=app)).json()
    assert start["head"]
    tokens = await provider.tokens()
    waiting = asyncio.ensure_future(
        provider.http.get("/v1/revocations", params={"after": start["next_cursor"], "wait": "20"}, auth=app)
    )
    await provider.post("/oauth2/revoke", {"token": tokens["refresh_token"]}, provider.gui())
    page = (await asyncio.wait_for(waiting, 15)).json()
    assert [item["kind"] for item in page["items"]] == ["family"]
    rest = (await provider.http.get("/v1/revocations", params={"after": page["next_cursor"]}, auth=app)).json()
    assert rest["items"] == []
    everything = (await provider.http.get("/v1/revocations", auth=app)).json()
    assert everything["items"] == page["items"]


async def test_the_feed_tells_what_is_revoked_although_its_event_has_no_place_yet(
    run_provider, tmp_path, postgresql_url, as_stranger
):
    """The process that gives events their places may hang, and keep the lead: a feed that says it is at its head, and
    says nothing, would have every resource server take what is revoked."""
    async with run_provider(tmp_path, postgresql_url) as provider, as_stranger() as stranger:
        await provider.add_user("ada")
        app = ("evs-app", provider.secret_of("evs-app"))
        tokens = await provider.tokens()
        async with stranger.transaction():
            await stranger.execute("SELECT * FROM event_log_state FOR UPDATE")  # as whoever gives places does
            start = (await provider.http.get("/v1/revocations", auth=app)).json()
            await provider.post("/oauth2/revoke", {"token": tokens["refresh_token"]}, provider.gui())
            after = {"after": start["next_cursor"]}
            told = [
                (await provider.http.get("/v1/revocations", params=after | {"wait": wait}, auth=app)).json()
                for wait in ("0", "1")
            ]
        assert [[item["kind"] for item in page["items"]] for page in told] == [["family"], ["family"]]
        assert {page["next_cursor"] for page in told} == {start["next_cursor"]}


async def test_what_is_revoked_is_told_for_an_hour_however_many_events_come_after_it(
    run_provider, tmp_path, database_url
):
    """Who begins to read only now, or was away, must hear of it: what it refuses is good for as long."""
    async with run_provider(tmp_path, database_url, event_retention_count=100_000) as provider:
        await provider.add_user("ada")
        database, app = provider.service.database, ("evs-app", provider.secret_of("evs-app"))
        tokens = await provider.tokens()
        await provider.post("/oauth2/revoke", {"token": tokens["refresh_token"]}, provider.gui())
        await wait_until(lambda: provider.events("evs.token.revoked"))

        def many_more(connection):
            """As if everybody had handled as many events as that."""
            end = head(connection).position + 200_000
            connection.execute(update(event_log_state).values(placed_position=end))
            connection.execute(update(subscription_cursors).values(position=end))

        await database.transact(many_more)
        await Retention(database, events_to_keep(provider.settings), is_published=False).prune()
        told = (await provider.http.get("/v1/revocations", auth=app)).json()["items"]
        assert "family" in [item["kind"] for item in told]


async def test_the_revocation_feed_is_for_resource_servers(provider):
    assert (await provider.http.get("/v1/revocations")).status_code == 400
    assert (await provider.http.get("/v1/revocations", auth=("evs-app", "wrong"))).status_code == 401
    assert (await provider.http.get("/v1/revocations", auth=provider.gui())).status_code == 403
    app = ("evs-app", provider.secret_of("evs-app"))
    assert (await provider.http.get("/v1/revocations?after=9.1", auth=app)).status_code == 410
    assert (await provider.http.get("/v1/revocations?after=x", auth=app)).status_code == 400


async def test_what_was_allowed_in_a_session_ends_with_it_but_offline_access_goes_on(provider_on_both):
    provider = provider_on_both
    tokens = await provider.tokens()
    callback = "https://other.test/cb"
    scopes = frozenset(("openid", "offline_access"))
    other = await provider.add_client(id="other", name="O", redirect_uris=(callback,), scopes=scopes, consent="never")
    request = {"client_id": "other", "redirect_uri": callback, "scope": "openid offline_access"}
    code = await provider.sign_in_for_code(**request)
    form = {"code": code, "redirect_uri": callback, "code_verifier": provider.verifier}
    lasting = (await provider.token(other, grant_type="authorization_code", **form)).json()
    await provider.service.database.transact(
        lambda connection: connection.execute(update(sessions).values(expires_at=1)) and None
    )
    assert not (await provider.introspect(tokens["refresh_token"]))["active"]
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    renewed = await provider.token(other, grant_type="refresh_token", refresh_token=lasting["refresh_token"])
    assert renewed.status_code == 200


async def test_of_two_changes_of_roles_within_a_second_the_second_counts_too(provider_on_both):
    provider = provider_on_both
    ada = await provider.add_user("grace", "operator", "auditor")
    transact, actor = provider.service.database.transact, provider.actor()
    await transact(accounts.set_roles, ada.id, frozenset(("operator",)), actor)
    tokens = await provider.tokens("grace")
    assert (await provider.introspect(tokens["access_token"]))["roles"] == ["member", "operator"]
    await transact(accounts.set_roles, ada.id, frozenset(("member",)), actor)
    assert not (await provider.introspect(tokens["access_token"]))["active"]
    renewed = (await provider.refresh(tokens["refresh_token"])).json()
    assert (await provider.introspect(renewed["access_token"]))["roles"] == ["member"]


async def test_a_token_is_good_at_once_however_often_rights_were_changed_just_before(provider):
    """Each change within a second refuses the tokens of one second more, so that a token says a later one."""
    ada = await provider.add_user("grace")
    transact, actor = provider.service.database.transact, provider.actor()
    for roles in (("member", "operator"), ("member",)) * 10:
        await transact(accounts.set_roles, ada.id, frozenset(roles), actor)
    bearer = {"authorization": f"Bearer {(await provider.tokens('grace'))['access_token']}"}
    assert (await provider.http.get("/oauth2/userinfo", headers=bearer)).status_code == 200


async def test_secrets_and_tokens_in_a_url_are_not_read(provider):
    query = f"client_id=evs-local&client_secret={provider.secret_of('evs-local')}"
    whole = await provider.post(f"/oauth2/token?grant_type=client_credentials&{query}", {"x": "y"})
    assert (whole.status_code, whole.json()["error"]) == (400, "invalid_request")
    half = await provider.post(f"/oauth2/token?{query}", {"grant_type": "client_credentials"})
    assert (half.status_code, half.json()["error"]) == (400, "invalid_client")
    token = (await provider.tokens())["access_token"]
    assert (await provider.http.get(f"/oauth2/userinfo?access_token={token}")).status_code == 401


async def test_an_access_token_is_sent_in_one_way(provider):
    token = (await provider.tokens())["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    answer = await provider.http.post("/oauth2/userinfo", data={"access_token": token}, headers=headers)
    assert answer.status_code == 400
    assert 'error="invalid_request"' in answer.headers["www-authenticate"]


async def test_a_public_client_gets_no_token_of_its_own(provider):
    refused = await provider.token(None, grant_type="client_credentials", client_id="evs-cli")
    assert (refused.status_code, refused.json()["error"]) in {(400, "invalid_client"), (400, "unauthorized_client")}
    with pytest.raises(ClientRejected):
        await provider.add_client(id="open", name="Open", secret_digest=None, grant_types=("client_credentials",))


async def test_a_public_client_revokes_its_own_tokens_and_no_others(provider):
    tokens = await provider.tokens()
    refused = await provider.post("/oauth2/revoke", {"client_id": "evs-cli", "token": tokens["refresh_token"]})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    values = {"secret_digest": None, "redirect_uris": ("https://spa.test/",), "scopes": frozenset(("openid",))}
    await provider.add_client(id="spa", name="Spa", consent="never", **values)
    code = await provider.sign_in_for_code(client_id="spa", redirect_uri="https://spa.test/", scope="openid")
    form = {"client_id": "spa", "code": code, "redirect_uri": "https://spa.test/", "code_verifier": provider.verifier}
    mine = (await provider.token(None, grant_type="authorization_code", **form)).json()
    assert (
        await provider.post("/oauth2/revoke", {"client_id": "spa", "token": mine["refresh_token"]})
    ).status_code == 200
    again = {"client_id": "spa", "refresh_token": mine["refresh_token"]}
    assert (await provider.token(None, grant_type="refresh_token", **again)).json()["error"] == "invalid_grant"


async def test_a_token_type_hint_is_a_hint(provider):
    tokens = await provider.tokens()
    for hint in ("refresh_token", "nonsense"):
        told = {"token": tokens["access_token"], "token_type_hint": hint}
        assert (await provider.post("/oauth2/introspect", told, provider.gui())).json()["active"]
    form = {"token": tokens["refresh_token"], "token_type_hint": "access_token"}
    assert (await provider.post("/oauth2/revoke", form, provider.gui())).status_code == 200
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_an_assertion_is_no_grant(provider):
    local = ("evs-local", provider.secret_of("evs-local"))
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "a.b.c"}
    assert (await provider.token(local, **grant)).json()["error"] == "unsupported_grant_type"


async def test_a_refresh_token_that_was_not_used_for_a_month_is_worth_nothing(provider):
    tokens = await provider.tokens()
    month = 30 * 24 * 3600 * 1_000_000
    earlier = update(refresh_tokens).values(expires_at=refresh_tokens.c.expires_at - month)
    await provider.service.database.transact(lambda connection: connection.execute(earlier) and None)
    assert (await provider.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
