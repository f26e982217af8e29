"""A client's delegations: what the token endpoint's answers mean, and what is asked again."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import httpx
import pytest

from lib_auth.delegations import ConsentNeeded, DelegationRejected, Delegations
from lib_auth.oauth_error import ServerUnavailable

ISSUER = "https://issuer.example"
METADATA = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token", "revocation_endpoint": f"{ISSUER}/revoke"}


class Endpoint:
    """A token endpoint in a test's hands."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self.forms: list[list[tuple[str, str]]] = []
        self.secrets = ["first secret"]
        self.logins: set[str] = set()

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/.well-known"):
            return httpx.Response(200, json=METADATA)
        self.forms.append(parse_qsl(request.content.decode()))
        self.logins.add(request.headers["authorization"])
        return self.answers.pop(0)

    def delegations(self) -> Delegations:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        return Delegations(ISSUER, "evs-app", client_secret=lambda: self.secrets[-1], http=http)

    def refuse(self, error: str, **members: str) -> None:
        self.answers.append(httpx.Response(400, json={"error": error, "error_description": "why"} | members))


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


async def begin(known: Delegations):
    resources, lasts = ["https://a.example", "https://b.example"], timedelta(hours=1)
    return await known.begin("the token", resources=resources, scope=["a", "b"], purpose="Run 1", lasts=lasts)


async def test_a_token_is_exchanged_for_a_delegation_and_that_for_a_token(endpoint):
    known = endpoint.delegations()
    endpoint.answers.append(httpx.Response(200, json={"access_token": "d1", "token_type": "N_A", "expires_in": 3600}))
    given = await begin(known)
    assert given.id == "d1"
    assert timedelta(minutes=59) < given.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    sent = endpoint.forms[0]
    assert [value for name, value in sent if name == "resource"] == ["https://a.example", "https://b.example"]
    assert dict(sent).items() >= {"scope": "a b", "delegation_seconds": "3600", "subject_token": "the token"}.items()

    endpoint.answers.append(httpx.Response(200, json={"access_token": "t1", "token_type": "Bearer", "expires_in": 300}))
    assert (await known.token("d1", resource="https://a.example", scope=["a"])).access_token == "t1"
    endpoint.answers.append(httpx.Response(200))
    await known.end("d1")
    assert endpoint.forms[-1] == [("token", "d1")]


@pytest.mark.parametrize(
    ("error", "members", "reason"),
    [
        ("invalid_request", {"delegation_state": "expired"}, "expired"),
        ("invalid_request", {"delegation_state": "withdrawn"}, "withdrawn"),
        ("invalid_request", {"delegation_state": "of a newer release"}, "token"),
        ("invalid_request", {}, "token"),
        ("unauthorized_client", {}, "token"),
        ("invalid_target", {}, "target"),
        ("invalid_scope", {}, "scope"),
    ],
    ids=str,
)
async def test_a_refusal_says_what_is_in_the_way(endpoint, error, members, reason):
    endpoint.refuse(error, **members)
    with pytest.raises(DelegationRejected, match="why") as caught:
        await endpoint.delegations().token("d1", resource="https://a.example", scope=["a"])
    assert caught.value.reason == reason


async def test_a_person_who_has_to_allow_it_first_is_told_where(endpoint):
    endpoint.refuse("consent_required", consent_uri=f"{ISSUER}/allow")
    with pytest.raises(ConsentNeeded) as caught:
        await begin(endpoint.delegations())
    assert caught.value.consent_uri == f"{ISSUER}/allow"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, json={}),
        httpx.Response(200, json={}),
        httpx.Response(200, text="hello"),
        httpx.Response(400, json={"error": "temporarily_unavailable"}),
    ],
    ids=str,
)
async def test_what_is_no_answer_can_be_asked_again(endpoint, answer):
    endpoint.answers.append(answer)
    with pytest.raises(ServerUnavailable):
        await begin(endpoint.delegations())


async def test_a_client_whose_secret_was_changed_reads_it_again(endpoint):
    known = endpoint.delegations()
    endpoint.answers.append(httpx.Response(401, json={"error": "invalid_client"}))
    with pytest.raises(ServerUnavailable, match="refuses evs-app"):
        await begin(known)
    endpoint.secrets.append("second secret")
    endpoint.answers.append(httpx.Response(200, json={"access_token": "d1", "expires_in": 60}))
    await begin(known)
    assert len(endpoint.logins) == 2
