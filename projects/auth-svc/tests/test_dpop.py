"""DPoP (RFC 9449): tokens that are worth nothing without the key they are bound to."""

import asyncio
import time

import pytest
from joserfc.jwk import OctKey, OKPKey, RSAKey
from sqlalchemy import func, select

from auth_svc.pruner import prune
from auth_svc.tables import proofs
from lib_auth.client import OAuthClient
from lib_auth.dpop import FRESH_SECONDS, KEPT_SECONDS
from lib_auth.oauth_error import OAuthError, ServerUnavailable
from lib_auth.proof_key import ProofKey
from lib_events.sealed import SealingKey

ISSUER = "http://127.0.0.1:8001"
TOKEN = f"{ISSUER}/oauth2/token"
USERINFO = f"{ISSUER}/oauth2/userinfo"
CREDENTIALS = {"grant_type": "client_credentials", "scope": "workflows:read"}


@pytest.fixture
def ask(provider, holder):
    """Asks for a token with a proof, as evs-local unless told otherwise."""

    async def post(proof=None, *, auth=None, **form):
        headers = {"dpop": proof} if proof is not None else {}
        auth = auth or ("evs-local", provider.secret_of("evs-local"))
        return await provider.http.post("/oauth2/token", data=form or CREDENTIALS, auth=auth, headers=headers)

    return post


async def nonce_of(provider, ask, holder):
    answer = await ask(holder.proof(TOKEN))
    assert (answer.status_code, answer.json()["error"]) == (400, "use_dpop_nonce")
    assert answer.headers["cache-control"] == "no-store"
    holder.nonce = answer.headers["dpop-nonce"]
    return holder.nonce


async def test_the_server_asks_for_its_nonce_and_binds_the_token(provider, ask, holder):
    await nonce_of(provider, ask, holder)
    answer = await ask(holder.proof(TOKEN))
    assert answer.json()["token_type"] == "DPoP"
    assert answer.headers["dpop-nonce"]
    told = await provider.introspect(answer.json()["access_token"])
    assert (told["cnf"], told["token_type"]) == ({"jkt": holder.thumbprint}, "DPoP")


async def test_without_a_proof_tokens_are_bearer_tokens_unless_the_client_is_bound(provider, ask):
    assert (await ask()).json()["token_type"] == "Bearer"
    bound = await provider.add_client(
        id="bound",
        name="Bound",
        grant_types=("client_credentials",),
        scopes=frozenset(("events:read",)),
        dpop_bound=True,
    )
    answer = await ask(auth=bound, grant_type="client_credentials")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"htm": "GET"}, "htm"),
        ({"htu": f"{ISSUER}/oauth2/par"}, "htu"),
        ({"htu": "http://localhost:8001/oauth2/token"}, "htu"),
        ({"htu": 7}, "htu"),
        ({"jti": ...}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": 7}, "jti"),
        ({"iat": ...}, "iat"),
        ({"iat": "now"}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": 10**400}, "iat"),
        ({"iat": float("nan")}, "iat"),
        ({"iat": float("inf")}, "iat"),
        ({"nonce": 5}, "nonce"),
        ({"header": {"typ": "JWT"}}, "typ"),
        ({"header": {"crit": ["b64"], "b64": True}}, "header"),
        ({"header": {"jwk": {"kty": "EC"}}}, "jwk"),
    ],
)
async def test_a_proof_must_fit_the_request(provider, ask, holder, changes, word):
    await nonce_of(provider, ask, holder)
    answer = await ask(holder.proof(TOKEN, **changes))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    assert word in answer.json()["error_description"]


@pytest.mark.filterwarnings("ignore:Key size should be:joserfc.errors.SecurityWarning")
async def test_a_proof_carries_a_public_asymmetric_key(provider, ask, new_holder, holder):
    await nonce_of(provider, ask, holder)
    private = holder.key.as_dict(private=True)
    answers = [await ask(holder.proof(TOKEN, header={"jwk": private}))]
    secret = OctKey.generate_key(256)
    answers.append(await ask(new_holder(secret, "HS256", holder.nonce).proof(TOKEN, header={"jwk": secret.as_dict()})))
    short = RSAKey.generate_key(1024, private=True)
    answers.append(await ask(new_holder(short, "RS256", holder.nonce).proof(TOKEN)))
    answers.append(await ask("no.jwt.here"))
    answers.append(await ask("a" * 5000))
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
        assert holder.key.as_dict(private=True)["d"] not in answer.text


async def test_a_large_proof_is_refused_unread(provider, ask, holder):
    await nonce_of(provider, ask, holder)
    large = holder.proof(TOKEN, more="x" * 4_000)
    answer = await ask(large)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    assert "4096" in answer.json()["error_description"]
    assert (await ask(holder.proof(TOKEN, more="x" * 1_000))).status_code == 200


async def test_a_key_that_is_made_to_be_slow_is_not_tried(provider, ask, new_holder, holder, slow_rsa_key):
    await nonce_of(provider, ask, holder)
    rsa = new_holder(RSAKey.generate_key(2048, private=True), "RS256", holder.nonce)
    answer = await ask(rsa.proof(TOKEN, header={"jwk": slow_rsa_key}))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    assert "exponent" in answer.json()["error_description"]


async def test_other_algorithms_are_as_good(provider, ask, new_holder, holder, subtests):
    nonce = await nonce_of(provider, ask, holder)
    for key, algorithm in (
        (OKPKey.generate_key("Ed25519", private=True), "Ed25519"),
        (RSAKey.generate_key(2048, private=True), "PS256"),
        (RSAKey.generate_key(2048, private=True), "RS256"),
    ):
        with subtests.test(algorithm):
            answer = await ask(new_holder(key, algorithm, nonce).proof(TOKEN))
            assert answer.status_code == 200, answer.text


async def test_of_twenty_uses_of_one_proof_one_counts(provider_on_both, new_holder):
    provider, holder = provider_on_both, new_holder()
    holder.nonce = provider.service.issuer.nonces.current()
    proof, auth = holder.proof(TOKEN), ("evs-local", provider.secret_of("evs-local"))
    send = provider.http.post
    answers = await asyncio.gather(
        *(send("/oauth2/token", data=CREDENTIALS, auth=auth, headers={"dpop": proof}) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert {answer.json().get("error") for answer in answers} == {None, "invalid_dpop_proof"}


async def test_a_code_that_names_a_key_is_for_its_holder(provider, ask, new_holder, holder):
    await nonce_of(provider, ask, holder)
    thief = new_holder(nonce=holder.nonce)
    code = await provider.sign_in_for_code(dpop_jkt=holder.thumbprint)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": "http://127.0.0.1:8000/callback",
        "code_verifier": provider.verifier,
    }
    stolen = await ask(thief.proof(TOKEN), auth=provider.gui(), **form)
    assert stolen.json()["error"] == "invalid_grant"
    assert (await ask(auth=provider.gui(), **form)).json()["error"] == "invalid_grant"
    assert (await ask(holder.proof(TOKEN), auth=provider.gui(), **form)).json()["token_type"] == "DPoP"


async def test_a_public_clients_refresh_tokens_are_for_the_holder_of_its_key(provider, new_holder, holder):
    holder.nonce = provider.service.issuer.nonces.current()
    thief = new_holder(nonce=holder.nonce)
    browser = await provider.browser()
    await provider.authorize(browser, client_id="evs-cli", redirect_uri="http://127.0.0.1:5555/callback")
    await browser.submit(username="ada", password="correct horse battery staple")
    code = provider.answer(await browser.submit(decision="allow"))["code"]

    async def post(proof=None, **form):
        headers = {"dpop": proof} if proof else {}
        return await provider.http.post("/oauth2/token", data={"client_id": "evs-cli"} | form, headers=headers)

    first = await post(
        holder.proof(TOKEN),
        grant_type="authorization_code",
        code=code,
        redirect_uri="http://127.0.0.1:5555/callback",
        code_verifier=provider.verifier,
    )
    refresh = {"grant_type": "refresh_token", "refresh_token": first.json()["refresh_token"]}
    assert (await post(thief.proof(TOKEN), **refresh)).json()["error"] == "invalid_grant"
    assert (await post(**refresh)).json()["error"] == "invalid_grant"
    assert (await post(holder.proof(TOKEN), **refresh)).json()["token_type"] == "DPoP"


async def test_a_bound_token_needs_its_proof_wherever_it_is_used(provider, ask, new_holder, holder, subtests):
    await nonce_of(provider, ask, holder)
    code = await provider.sign_in_for_code()
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": "http://127.0.0.1:8000/callback"}
    tokens = await ask(holder.proof(TOKEN), auth=provider.gui(), **form, code_verifier=provider.verifier)
    token = tokens.json()["access_token"]

    async def get(authorization, *proofs):
        headers = [("authorization", authorization), *(("dpop", proof) for proof in proofs)]
        return await provider.http.get("/oauth2/userinfo", headers=headers)

    good = holder.proof(USERINFO, method="GET", token=token)
    assert (await get(f"DPoP {token}", good)).json()["preferred_username"] == "ada"
    used = {
        "again": (f"DPoP {token}", good),
        "as bearer": (f"Bearer {token}",),
        "as bearer with a proof": (f"Bearer {token}", holder.proof(USERINFO, method="GET", token=token)),
        "without a proof": (f"DPoP {token}",),
        "with two": (f"DPoP {token}", *(holder.proof(USERINFO, method="GET", token=token) for _ in range(2))),
        "for another token": (f"DPoP {token}", holder.proof(USERINFO, method="GET", token="another")),
        "for no token": (f"DPoP {token}", holder.proof(USERINFO, method="GET")),
        "for another method": (f"DPoP {token}", holder.proof(USERINFO, method="POST", token=token)),
        "of yesterday": (f"DPoP {token}", holder.proof(USERINFO, method="GET", token=token, iat=time.time() - 90_000)),
        "of no day at all": (
            f"DPoP {token}",
            holder.proof(USERINFO, method="GET", token=token, iat=float("nan")),
        ),
        "of another key": (f"DPoP {token}", new_holder().proof(USERINFO, method="GET", token=token)),
    }
    for name, sent in used.items():
        with subtests.test(name):
            refused = await get(*sent)
            assert refused.status_code == 401
            challenge = refused.headers["www-authenticate"]
            assert 'error="invalid_' in challenge
            assert ("algs=" in challenge) == challenge.startswith("DPoP")


async def test_twenty_tabs_that_refresh_at_once_each_with_its_proof_are_told_the_same_successor(
    provider_on_both, new_holder
):
    """The one that lost had its proof taken: it is the same request that looks again."""
    provider, holder = provider_on_both, new_holder()
    tokens = (await redeemed(provider, holder)).json()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    async def refresh():
        headers = {"dpop": holder.proof(TOKEN)}
        return await provider.http.post("/oauth2/token", data=form, auth=provider.gui(), headers=headers)

    answers = await asyncio.gather(*(refresh() for _ in range(20)))
    assert {(answer.status_code, answer.json().get("error")) for answer in answers} == {(200, None)}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


async def redeemed(provider, holder, username="ada", **wanted):
    """Sign somebody in at the GUI, with a proof of a key; returns the answer with the tokens."""
    holder.nonce = provider.service.issuer.nonces.current()
    form = {"grant_type": "authorization_code", "code": await provider.sign_in_for_code(username, **wanted)}
    form |= {"redirect_uri": "http://127.0.0.1:8000/callback", "code_verifier": provider.verifier}
    headers = {"dpop": holder.proof(TOKEN)}
    return await provider.http.post("/oauth2/token", data=form, auth=provider.gui(), headers=headers)


async def bound_token(provider, holder, username="ada", **wanted):
    """Sign somebody in at the GUI, whose token is bound to a key then."""
    answer = await redeemed(provider, holder, username, **wanted)
    assert answer.json()["token_type"] == "DPoP", answer.text
    return answer.json()["access_token"]


async def test_a_proof_counts_once_whichever_process_it_comes_to(
    run_provider, tmp_path, postgresql_url, holder, subtests
):
    given = SealingKey.generate()
    async with (
        run_provider(tmp_path / "a", postgresql_url, sealing_key=given) as one,
        run_provider(tmp_path / "b", postgresql_url, sealing_key=given) as two,
    ):
        admin = {"scope": "openid admin", "resource": f"{ISSUER}/v1/admin"}
        for path, wanted in (("/oauth2/userinfo", {}), ("/v1/admin/users", admin)):
            with subtests.test(path):
                token = await bound_token(two, holder, "admin", **wanted)  # whose clients were put last
                proof = holder.proof(f"{ISSUER}{path}", method="GET", token=token)
                headers = {"authorization": f"DPoP {token}", "dpop": proof}
                asked = [each.http.get(path, headers=headers) for each in (one, two) for _ in range(10)]
                statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
                assert sorted(statuses) == [200] + [401] * 19


async def test_a_proof_that_was_used_before_a_restart_counts_no_more(run_provider, tmp_path, sqlite_url, holder):
    async with run_provider(tmp_path, sqlite_url) as before:
        token = await bound_token(before, holder, "admin")
        headers = {"authorization": f"DPoP {token}", "dpop": holder.proof(USERINFO, method="GET", token=token)}
        assert (await before.http.get("/oauth2/userinfo", headers=headers)).status_code == 200
    async with run_provider(tmp_path, sqlite_url) as after:
        refused = await after.http.get("/oauth2/userinfo", headers=headers)
        assert refused.status_code == 401
        assert "was used before" in refused.headers["www-authenticate"]
        headers["dpop"] = holder.proof(USERINFO, method="GET", token=token)
        assert (await after.http.get("/oauth2/userinfo", headers=headers)).status_code == 200


async def test_what_is_kept_of_proofs_goes_with_its_time(provider, holder):
    token = await bound_token(provider, holder)
    headers = {"authorization": f"DPoP {token}", "dpop": holder.proof(USERINFO, method="GET", token=token)}
    assert (await provider.http.get("/oauth2/userinfo", headers=headers)).status_code == 200

    def kept(connection):
        return connection.scalar(select(func.count()).select_from(proofs))

    now = provider.service.clock.micros()
    await provider.service.database.transact(prune, now + int(2 * FRESH_SECONDS) * 1_000_000)
    assert await provider.service.database.read(kept) == 2, "each could come again"
    await provider.service.database.transact(prune, now + int(KEPT_SECONDS + 60) * 1_000_000)
    assert await provider.service.database.read(kept) == 0


async def test_a_client_with_a_key_signs_in_renews_and_asks_who_it_is(provider, new_holder):
    key = ProofKey.generate()
    client = OAuthClient(ISSUER, "evs-gui", client_secret=provider.secret_of("evs-gui"), http=provider.http)
    client.proof_key = key
    pending = await client.begin_authorization(
        redirect_uri="http://127.0.0.1:8000/callback", scope="openid profile workflows:read"
    )
    browser = await provider.browser()
    await browser.open(pending.url.removeprefix(ISSUER))
    answer = provider.answer(await browser.submit(username="ada", password="correct horse battery staple"))
    tokens = await client.finish_authorization(pending, answer)
    told = await provider.introspect(tokens.access_token)
    assert (told["token_type"], told["cnf"]) == ("DPoP", {"jkt": key.thumbprint})
    assert (await client.userinfo(tokens.access_token))["preferred_username"] == "ada"
    client.proof_key = ProofKey.from_dict(key.to_dict())
    renewed = await client.refresh(tokens.refresh_token)
    assert (await client.userinfo(renewed.access_token))["preferred_username"] == "ada"
    client.proof_key = None
    with pytest.raises(ServerUnavailable, match="401"):
        await client.userinfo(renewed.access_token)


async def test_a_code_that_a_client_with_a_key_asked_for_is_bound_to_it(provider):
    client = provider.oauth_client("evs-gui", provider.secret_of("evs-gui"))
    client.proof_key = ProofKey.generate()
    pending = await client.begin_authorization(
        redirect_uri="http://127.0.0.1:8000/callback", scope="openid profile workflows:read"
    )
    browser = await provider.browser()
    await browser.open(pending.url.removeprefix(ISSUER))
    answer = provider.answer(await browser.submit(username="ada", password="correct horse battery staple"))
    client.proof_key = ProofKey.generate()  # of whoever found the code and its verifier
    with pytest.raises(OAuthError, match="invalid_grant"):
        await client.finish_authorization(pending, answer)


async def test_a_bearer_token_does_not_become_bound_by_calling_it_so(provider, holder):
    token = (await provider.tokens())["access_token"]
    headers = {"authorization": f"DPoP {token}", "dpop": holder.proof(USERINFO, method="GET", token=token)}
    assert (await provider.http.get("/oauth2/userinfo", headers=headers)).status_code == 401


async def test_an_old_nonce_is_refused_with_a_fresh_one(provider, ask, holder):
    holder.nonce = "bm90IG9uZSBvZiBvdXJz"
    answer = await ask(holder.proof(TOKEN))
    assert answer.json()["error"] == "use_dpop_nonce"
    assert answer.headers["dpop-nonce"] != holder.nonce


async def test_there_is_one_proof_in_a_request(provider, holder):
    holder.nonce = provider.service.issuer.nonces.current()
    headers = [("dpop", holder.proof(TOKEN)), ("dpop", holder.proof(TOKEN))]
    auth = ("evs-local", provider.secret_of("evs-local"))
    answer = await provider.http.post("/oauth2/token", data=CREDENTIALS, auth=auth, headers=headers)
    assert answer.json()["error"] == "invalid_dpop_proof"


async def test_the_url_of_a_proof_is_compared_without_query_and_in_its_normal_form(provider, ask, holder, subtests):
    await nonce_of(provider, ask, holder)
    for url in (f"{TOKEN}?x=1", f"{TOKEN}#x", TOKEN.replace("http", "HTTP", 1)):
        with subtests.test(url):
            assert (await ask(holder.proof(url))).status_code == 200


async def test_a_path_with_escapes_is_compared_as_it_was_written(provider, ask, holder, subtests):
    """RFC 9449 section 4.3 with RFC 3986 section 6.2.2: what means the same is the same, and nothing else is."""
    await nonce_of(provider, ask, holder)
    code = await provider.sign_in_for_code("admin", scope="openid admin", resource=f"{ISSUER}/v1/admin")
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": "http://127.0.0.1:8000/callback"}
    tokens = await ask(holder.proof(TOKEN), auth=provider.gui(), **form, code_verifier=provider.verifier)
    token, clients = tokens.json()["access_token"], "/v1/admin/clients/"
    for sent, said, status in (
        ("https%3A%2F%2Fa.example%2Fb%20c", "https%3A%2F%2Fa.example%2Fb%20c", 404),
        ("https%3A%2F%2Fa.example", "https%3a%2f%2fa.example", 404),
        ("evs%2Dgui", "evs-gui", 200),
        ("evs-gui", "evs%2dgui", 200),
        ("a%2Fb", "a/b", 401),
        ("evs-gui", "evs-cli", 401),
    ):
        with subtests.test(f"{sent} said as {said}"):
            proof = holder.proof(f"{ISSUER}{clients}{said}", method="GET", token=token)
            headers = {"authorization": f"DPoP {token}", "dpop": proof}
            assert (await provider.http.get(clients + sent, headers=headers)).status_code == status


async def test_a_changed_proof_is_refused(provider, ask, new_holder, holder):
    await nonce_of(provider, ask, holder)
    head, claims, _ = holder.proof(TOKEN).split(".")
    _, other, signature = new_holder(nonce=holder.nonce).proof(TOKEN).split(".")
    for proof in (f"{head}.{claims}.{signature}", f"{head}.{other}.{signature}", f"{head}.{claims}."):
        answer = await ask(proof)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
