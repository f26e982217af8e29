"""Token exchange (RFC 8693): a service acts for the person who called it, in less, and says so."""

import pytest

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
APP = "http://127.0.0.1:8002"


@pytest.fixture
def exchange(provider):
    """Exchanges a token, as the AppService unless told otherwise."""

    async def post(token, auth=None, **form):
        wanted = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN} | form
        auth = auth or ("evs-app", provider.secret_of("evs-app"))
        return await provider.token(auth, **{name: value for name, value in wanted.items() if value is not ...})

    return post


async def test_the_appservice_acts_for_the_person_with_less(provider, exchange):
    tokens = await provider.tokens()
    answer = await exchange(tokens["access_token"], scope="workflows:read")
    body = answer.json()
    assert (body["issued_token_type"], body["token_type"], body["scope"]) == (ACCESS_TOKEN, "Bearer", "workflows:read")
    assert "refresh_token" not in body
    told = await provider.introspect(body["access_token"])
    person = await provider.introspect(tokens["access_token"])
    assert told["sub"] == person["sub"]
    assert (told["client_id"], told["act"]) == ("evs-app", {"sub": "evs-app"})
    (issued,) = [event.data for event in await provider.events("evs.token.issued") if event.data.get("actor")]
    assert (issued["actor"], issued["grant_type"]) == ("evs-app", EXCHANGE)


async def test_it_ends_with_what_the_person_allowed(provider, exchange):
    tokens = await provider.tokens()
    acting = (await exchange(tokens["access_token"])).json()["access_token"]
    await provider.post("/oauth2/revoke", {"token": tokens["refresh_token"]}, provider.gui())
    assert await provider.introspect(acting) == {"active": False}


async def test_it_never_grows(provider, exchange):
    tokens = await provider.tokens(scope="openid workflows:read")
    assert (await exchange(tokens["access_token"], scope="workflows:run")).json()["error"] == "invalid_scope"
    assert (await exchange(tokens["access_token"], resource=f"{provider.settings.auth_url}/v1/admin")).json()[
        "error"
    ] == "invalid_target"
    assert (await exchange(tokens["access_token"])).json()["scope"] == "workflows:read"


async def test_it_lives_no_longer_than_what_it_comes_from(provider, exchange):
    """The AppService's own tokens live for 15 minutes, the person's for five."""
    tokens = await provider.tokens()
    assert (await exchange(tokens["access_token"])).json()["expires_in"] <= tokens["expires_in"]


async def test_only_the_token_that_is_exchanged_says_whose_it_is(provider, exchange, subtests):
    """Or somebody else's code or refresh token, sent along, would be exchanged without its client and its proof."""
    mine = (await provider.tokens("ada"))["access_token"]
    await provider.add_user("bob")
    code = await provider.sign_in_for_code("bob")
    theirs = (await provider.redeem(code)).json()
    device = (await provider.post("/oauth2/device_authorization", {"client_id": "evs-cli"})).json()["device_code"]
    for also in ({"code": code}, {"refresh_token": theirs["refresh_token"]}, {"device_code": device}):
        with subtests.test(also=list(also)):
            answer = await exchange(mine, **also)
            assert (await provider.introspect(answer.json()["access_token"]))["username"] == "ada"


async def test_a_target_is_named_by_its_uri(provider, exchange):
    """RFC 8693 section 2.2.2: who asked for another audience must not get a token for the default one."""
    answer = await exchange((await provider.tokens())["access_token"], audience="billing")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")


async def test_the_chain_of_who_acts_is_kept_and_bounded(provider, exchange):
    token = (await provider.tokens())["access_token"]
    for depth in range(1, 5):
        answer = await exchange(token)
        token = answer.json()["access_token"]
        act, seen = (await provider.introspect(token))["act"], 0
        while act:
            act, seen = act.get("act"), seen + 1
        assert seen == depth
    assert (await exchange(token)).json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"subject_token": "garbled"}, "invalid_request"),
        ({"subject_token": ...}, "invalid_request"),
        ({"subject_token_type": ...}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"scope": "unknown"}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),  # the person's token has it, the AppService may not have it
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
    ],
    ids=str,
)
async def test_a_wrong_exchange_is_refused(provider, exchange, changes, error):
    tokens = await provider.tokens()
    answer = await exchange(**({"token": tokens["access_token"]} | changes))
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_who_may_exchange_what(provider, exchange):
    token = (await provider.tokens())["access_token"]
    assert (await exchange(token, auth=provider.gui())).json()["error"] == "unauthorized_client"
    stranger = await provider.add_client(
        id="stranger", name="Stranger", grant_types=(EXCHANGE,), scopes=frozenset(("workflows:read",))
    )
    assert (await exchange(token, auth=stranger)).json()["error"] == "unauthorized_client"
    machine = await provider.token(("evs-local", provider.secret_of("evs-local")), grant_type="client_credentials")
    assert (await exchange(machine.json()["access_token"])).json()["error"] == "invalid_request"


async def test_a_disabled_persons_token_is_worth_nothing(provider, exchange):
    token = (await provider.tokens())["access_token"]
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    assert (await provider.http.post("/v1/admin/users/ada/disable", headers=admin)).status_code == 200
    assert (await exchange(token)).json()["error"] == "invalid_request"
