"""Whatever anybody sends to any endpoint: an answer of the specification's shape, never a 5xx, never a way out."""

import base64
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from auth_svc.rate_limits import Attempts
from auth_svc.routes import TABLE
from auth_svc.site.browser import Visitor
from lib_auth.client import DEVICE_GRANT

ISSUER = "http://127.0.0.1:8001"
APP = "http://127.0.0.1:8002"
CALLBACK = "http://127.0.0.1:8000/callback"
PASSWORD = "correct horse battery staple"
CLIENTS = ("evs-local", "evs-app")
FORM = "application/x-www-form-urlencoded"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT = "eyJhbGciOiJub25lIn0.e30."
EVIL = "https://evil.test/"
SECRET, CSRF = "the client's secret", "the form's token"  # stand for the real ones, or nothing could get far

# RFC 6749 section 5.2.
DESCRIPTION = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*")

# What is sent for each value: beyond every length, outside of every alphabet, not even text.
VALUES = {
    "oversized": "a" * 30_000,
    "NUL": "%00",
    "invalid UTF-8": "%ff%fe",
    "broken escapes": "%zz%",
    "control characters": "%01%0d%0aset-cookie:%20a=b",
    "no ASCII": quote("ümläut 漢字 😀"),
    "a surrogate": "%ed%a0%80",
    "markup": quote("<script>alert(1)</script>"),
    "a quote": quote("a\"b'c\\d"),
    "a URL": quote(EVIL, safe=""),
    "a negative number": "-1",
    "a huge number": "9" * 400,
}
HEADERS = {
    "no scheme": {"authorization": "garbage"},
    "no credentials": {"authorization": "Basic"},
    "no base64": {"authorization": "Basic %%%"},
    "no colon": {"authorization": "Basic YWJj"},
    "no UTF-8": {"authorization": "Basic //79/g=="},
    "a NUL": {"authorization": "Basic ZXZzAGd1aTp4"},
    "a bearer of nothing": {"authorization": "Bearer"},
    "garbage as bearer": {"authorization": "Bearer \xff\xfe"},
    "an unsigned token": {"authorization": f"Bearer {JWT}"},
    "an endless token": {"authorization": "Bearer " + "a" * 20_000},
    "an unsigned proof": {"dpop": JWT},
    "garbage as proof": {"dpop": "\xff"},
    "garbage as cookies": {"cookie": "evs-auth-8001=\xff; evs-auth-8001-guest=;;;=="},
}


@dataclass(frozen=True)
class Target:
    """An endpoint, and the parameters of a request it understands."""

    method: str
    path: str
    parameters: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, encoded: str, *, content_type: str = FORM, **headers: str) -> dict[str, Any]:
        """A request with parameters that are encoded already."""
        given = {name: value.encode("latin-1") for name, value in (self.headers | headers).items()}
        if self.method in ("GET", "DELETE"):
            return {"method": self.method, "url": f"{self.path}?{encoded}", "headers": given}
        body = {"content": encoded.encode("latin-1"), "headers": {"content-type": content_type.encode()} | given}
        return {"method": self.method, "url": self.path} | body

    def encoded(self, *, without: str | None = None, **changed: str) -> str:
        """The parameters, of which one may be left out; `changed` ones are encoded already."""
        kept = {name: quote(value, safe="") for name, value in self.parameters.items() if name != without}
        return "&".join(f"{name}={value}" for name, value in (kept | changed).items())


AUTHORIZATION = {
    "response_type": "code",
    "client_id": "evs-gui",
    "redirect_uri": CALLBACK,
    "scope": "openid workflows:read",
    "state": "s",
    "nonce": "n",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method": "S256",
    "prompt": "none",
    "max_age": "10",
    "resource": APP,
    "id_token_hint": JWT,
    "login_hint": "ada",
    "response_mode": "query",
    "dpop_jkt": "A" * 43,
    "request": JWT,
    "request_uri": "urn:ietf:params:oauth:request_uri:x",
}
ALLOWING = {"client": "evs-app", "scope": "workflows:read", "resource": APP}
# The parameters that each endpoint reads; what is not named here is a page or a document without any.
PARAMETERS: dict[tuple[str, str], tuple[dict[str, str], ...]] = {
    ("GET", "/oauth2/authorize"): (AUTHORIZATION,),
    ("POST", "/oauth2/authorize"): (AUTHORIZATION,),
    ("POST", "/oauth2/par"): (AUTHORIZATION | {"client_secret": SECRET},),
    ("POST", "/oauth2/token"): (
        {
            "grant_type": "authorization_code",
            "client_id": "evs-cli",
            "code": "x",
            "redirect_uri": CALLBACK,
            "code_verifier": "v" * 43,
            "resource": APP,
        },
        {"grant_type": "refresh_token", "client_id": "evs-cli", "refresh_token": "x", "scope": "openid"},
        {"grant_type": DEVICE_GRANT, "client_id": "evs-cli", "device_code": "x"},
        {"grant_type": "client_credentials", "client_id": "evs-local", "client_secret": SECRET, "scope": "events:read"},
        {
            "grant_type": EXCHANGE,
            "client_id": "evs-app",
            "client_secret": SECRET,
            "subject_token": JWT,
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": ACCESS_TOKEN,
        },
        {
            "grant_type": "client_credentials",
            "client_assertion": JWT,
            "client_assertion_type": ASSERTION_TYPE,
        },
    ),
    ("POST", "/oauth2/device_authorization"): ({"client_id": "nobody", "scope": "openid", "resource": APP},),
    ("POST", "/oauth2/revoke"): ({"client_id": "evs-cli", "token": "x", "token_type_hint": "access_token"},),
    ("POST", "/oauth2/introspect"): ({"client_id": "evs-gui", "client_secret": SECRET, "token": "x"},),
    ("POST", "/oauth2/userinfo"): ({"access_token": JWT},),
    ("GET", "/oauth2/logout"): (
        {"id_token_hint": JWT, "client_id": "evs-gui", "post_logout_redirect_uri": EVIL, "state": "s"},
    ),
    ("POST", "/oauth2/logout"): ({"id_token_hint": JWT, "post_logout_redirect_uri": EVIL, "csrf": CSRF},),
    ("GET", "/v1/revocations"): ({"after": "1.1", "wait": "0"},),
    ("GET", "/login"): ({"next": "/oauth2/authorize?client_id=x"},),
    ("POST", "/login"): ({"csrf": CSRF, "username": "ada", "password": PASSWORD, "next": "/account"},),
    ("GET", "/register"): ({"next": "/account"},),
    ("POST", "/register"): ({"csrf": CSRF, "username": "eve", "password": PASSWORD, "email": "e@x.test"},),
    ("POST", "/consent"): (
        {"csrf": CSRF, "request": urlencode(AUTHORIZATION), "scope": "openid", "decision": "allow"},
    ),
    ("GET", "/device"): ({"user_code": "ABCD-EFGH"},),
    ("POST", "/device"): ({"csrf": CSRF, "user_code": "ABCD-EFGH", "decision": "allow"},),
    ("POST", "/account/password"): ({"csrf": CSRF, "current_password": PASSWORD, "new_password": PASSWORD},),
    ("POST", "/account/end-session"): ({"csrf": CSRF, "session": "x"},),
    ("POST", "/account/sign-out"): ({"csrf": CSRF},),
    ("POST", "/login/second"): ({"csrf": CSRF, "code": "123456", "recovery_code": "x", "next": "/account"},),
    ("POST", "/login/second/passkey"): ({"csrf": CSRF, "credential": "{}", "next": "/account"},),
    ("POST", "/login/passkey"): ({"csrf": CSRF, "credential": "{}", "next": "/account"},),
    ("POST", "/login/connect"): ({"csrf": CSRF},),
    ("POST", "/login/connect/new"): ({"csrf": CSRF},),
    ("GET", "/login/upstream/{upstream}"): ({"next": "/account"},),
    ("GET", "/login/upstream/{upstream}/callback"): ({"state": "s", "code": "c", "iss": EVIL, "error": "x"},),
    ("POST", "/account/name"): ({"csrf": CSRF, "name": "Ada"},),
    ("POST", "/account/email"): ({"csrf": CSRF, "email": "e@x.test", "password": PASSWORD},),
    ("POST", "/account/end-other-sessions"): ({"csrf": CSRF},),
    ("POST", "/account/apps/withdraw"): ({"csrf": CSRF, "client": "evs-cli"},),
    ("GET", "/account/apps/allow"): (ALLOWING,),
    ("POST", "/account/apps/allow"): ({"csrf": CSRF, "request": urlencode(ALLOWING), "decision": "allow"},),
    ("POST", "/account/apps/end-delegation"): ({"csrf": CSRF, "delegation": "x"},),
    ("POST", "/account/delete"): ({"csrf": CSRF, "password": "not the one"},),
    ("GET", "/verify-email"): ({"link": "x"},),
    ("POST", "/verify-email"): ({"csrf": CSRF, "link": "x"},),
    ("GET", "/recover"): ({"next": "/account"},),
    ("POST", "/recover"): ({"csrf": CSRF, "wanted": "ada"},),
    ("GET", "/recover/new-password"): ({"link": "x"},),
    ("POST", "/recover/new-password"): ({"csrf": CSRF, "link": "x", "new_password": PASSWORD},),
    ("POST", "/account/security/app"): ({"csrf": CSRF, "next": "/account"},),
    ("POST", "/account/security/app/confirm"): ({"csrf": CSRF, "code": "123456", "next": "/account"},),
    ("POST", "/account/security/app/remove"): ({"csrf": CSRF, "next": "/account"},),
    ("POST", "/account/security/recovery-codes"): ({"csrf": CSRF, "next": "/account"},),
    ("POST", "/account/security/passkeys"): ({"csrf": CSRF, "credential": "{}", "name": "key", "next": "/account"},),
    ("POST", "/account/security/passkeys/remove"): ({"csrf": CSRF, "passkey": "x", "next": "/account"},),
    ("POST", "/account/security/upstreams/disconnect"): ({"csrf": CSRF, "issuer": EVIL},),
    ("POST", "/account/security/upstreams/{upstream}"): ({"csrf": CSRF},),
}


def targets(provider) -> Iterator[Target]:
    """Every endpoint with every kind of request it takes; clients prove who they are."""
    for method, path, _ in TABLE:
        origin = {"origin": ISSUER} if method == "POST" else {}
        for parameters in PARAMETERS.get((method, path), ({},)):
            secret = (
                {"client_secret": provider.secret_of(parameters["client_id"])} if "client_secret" in parameters else {}
            )
            yield Target(method, concrete(path), parameters | secret, origin)


def spoiled(target: Target, name: str) -> Iterator[str]:
    """The target's parameters, with one of them spoiled in every way."""
    yield target.encoded(without=name)
    yield target.encoded(**{name: ""})
    yield f"{target.encoded()}&{name}=again"
    for value in VALUES.values():
        yield target.encoded(**{name: value})


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    """Limits have their own tests; here they would hide what is behind them."""
    monkeypatch.setattr(Attempts, "begin", lambda self, key: None)


DOORS = {"registration": True, "client_registration": "open", "client_documents": True}


@pytest.fixture
async def provider(run_provider, tmp_path, sqlite_url):
    """An AuthService with the user ada in which all doors are open."""
    async with run_provider(tmp_path, sqlite_url, **DOORS) as running:
        await running.add_user("ada")
        yield running


@pytest.fixture
async def open_on_both(run_provider, tmp_path, database_url):
    """The same on both databases, for what ends up in rows."""
    async with run_provider(tmp_path, database_url, **DOORS) as running:
        yield running


def takes_forms(target: Target) -> bool:
    """Whether it is one of the protocol, which reads forms and answers with JSON."""
    return target.method == "POST" and target.path.startswith("/oauth2/") and target.path != "/oauth2/register"


def check(answer, target: Target, *, refused: bool = False) -> None:
    """An answer that anybody may get for a request that is not right."""
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    assert "set-cookie" not in answer.headers or "a=b" not in answer.headers["set-cookie"]
    if answer.is_redirect:
        check_destination(answer.headers["location"])
        check_words({"error": ""} | dict(parse_qsl(urlsplit(answer.headers["location"]).query)))
    if answer.status_code >= 400 and target.path.startswith("/oauth2/") and answer.status_code not in (404, 405):
        check_refusal(answer)
    if refused:
        assert 400 <= answer.status_code < 500 or "error=" in answer.headers.get("location", ""), answer.text


def check_destination(location: str) -> None:
    """Nobody is ever sent anywhere but to our own pages and to what a client has registered."""
    parts = urlsplit(location)
    ours = not parts.scheme and not parts.netloc and location.startswith("/") and not location.startswith("//")
    assert ours or location.startswith(f"{CALLBACK}?"), location


def check_refusal(answer) -> None:
    """RFC 6749 section 5.2, RFC 6750 section 3, or the error page."""
    kind = answer.headers.get("content-type", "")
    if kind.startswith("text/html"):
        assert "<script>alert" not in answer.text
    elif kind.startswith("application/json"):
        check_words(answer.json())
        assert answer.headers["cache-control"] == "no-store"
    elif not kind.startswith("application/problem+json"):
        assert answer.headers["www-authenticate"]
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"]


def check_words(told) -> None:
    """RFC 6749 section 5.2: what may be in an error and its description."""
    assert DESCRIPTION.fullmatch(told["error"]), told
    assert DESCRIPTION.fullmatch(told.get("error_description", "")), told


def concrete(path: str) -> str:
    """A path with something for each of its parameters."""
    return re.sub(r"\{\w+\}", "evs-gui", path)


async def send(provider, request: dict[str, Any]):
    return await provider.http.request(**request)


def test_every_form_has_its_parameters_here():
    endpoints = {(method, path) for method, path, _ in TABLE}
    unlisted = {path for method, path in endpoints - PARAMETERS.keys() if method == "POST"}
    assert unlisted == {"/oauth2/register"}, "name what these forms read in PARAMETERS; JSON has its own test below"


async def test_a_parameter_that_is_missing_doubled_or_nonsense_is_refused_in_the_right_shape(provider, subtests):
    for target in targets(provider):
        for name in target.parameters:
            with subtests.test(f"{target.method} {target.path} {name}"):
                for encoded in spoiled(target, name):
                    check(await send(provider, target.request(encoded)), target)


async def test_forms_that_are_ours_are_read_as_strictly(open_on_both, subtests):
    """Beyond the form's token and the sign-in: a browser that is signed in sends nonsense in our own forms."""
    provider = open_on_both
    forms = [target for target in targets(provider) if "csrf" in target.parameters]
    assert len(forms) >= 8
    for number, target in enumerate(forms):
        await provider.add_user(f"user{number}")
        browser = await provider.browser()
        for name in target.parameters.keys() - {"csrf"}:
            with subtests.test(f"{target.path} {name}"):
                for encoded in spoiled(target, name):
                    if "evs-auth-8001" not in browser.http.cookies:
                        await browser.sign_in(f"user{number}")
                    csrf = Visitor(browser.http.cookies["evs-auth-8001"]).csrf
                    answer = await browser.http.request(**target.request(encoded.replace(quote(CSRF), quote(csrf))))
                    check(answer, target)
                    assert answer.status_code != 403, answer.text


async def test_what_comes_twice_is_refused_by_the_protocol(provider, subtests):
    for target in filter(takes_forms, targets(provider)):
        for name in target.parameters.keys() - {"resource"}:
            with subtests.test(f"{target.path} {name}"):
                answer = await send(provider, target.request(f"{target.encoded()}&{name}=again"))
                check(answer, target, refused=True)
                assert answer.status_code != 303 or target.path == "/oauth2/logout"


async def test_a_body_that_is_no_form_or_too_large_is_refused(provider, subtests):
    bodies = {
        "json": ('{"a": 1}', "application/json"),
        "multipart": ("--x\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        "no type at all": ("a=b", ""),
        "two bytes a letter": ("a\x00=\x00b\x00", f"{FORM}; charset=utf-16"),
        "huge": ("a=" + "b" * 100_000, FORM),
        "many": ("&".join(f"a{number}=b" for number in range(200)), FORM),
        "binary": ("".join(chr(number) for number in range(256)), FORM),
    }
    for target in targets(provider):
        if target.method not in ("POST", "PUT"):
            continue
        for case, (body, content_type) in bodies.items():
            with subtests.test(f"{target.method} {target.path}", case=case):
                answer = await send(provider, target.request(body, content_type=content_type))
                signed_out = answer.status_code == 303 and answer.headers["location"].startswith("/login")
                check(answer, target, refused=not signed_out and target.path != "/oauth2/logout")


async def test_who_hangs_up_in_the_middle_of_a_request_is_no_failure_of_ours(provider, subtests, caplog):
    """Anybody can, as often as they like: the log of failures would be full of it."""
    for target in targets(provider):
        if target.method in ("POST", "PUT"):
            with subtests.test(f"{target.method} {target.path}"):
                caplog.clear()
                await hang_up(provider.app, target)
                assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


async def hang_up(app: Any, target: Target) -> None:
    headers = [(b"host", b"127.0.0.1:8001"), (b"content-type", FORM.encode()), (b"origin", ISSUER.encode())]
    sent = [{"type": "http.request", "body": b"a=", "more_body": True}, {"type": "http.disconnect"}]
    scope = {"type": "http", "method": target.method, "path": target.path, "query_string": b"", "headers": headers}

    async def receive() -> dict[str, Any]:
        return sent.pop(0) if len(sent) > 1 else sent[0]

    async def send(_message: Any) -> None:
        """Nobody is there."""

    await app(scope | {"http_version": "1.1", "client": ("127.0.0.1", 1), "scheme": "http"}, receive, send)


async def test_headers_that_are_nonsense_are_refused(provider, subtests):
    for target in targets(provider):
        with subtests.test(f"{target.method} {target.path}"):
            for headers in HEADERS.values():
                check(await send(provider, target.request(target.encoded(), **headers)), target)


async def test_credentials_that_are_nonsense_are_a_401_with_a_challenge(provider, subtests):
    for path in ("/oauth2/token", "/oauth2/par", "/oauth2/revoke", "/oauth2/introspect"):
        for case in ("no base64", "no UTF-8", "a NUL", "no colon"):
            with subtests.test(path, case=case):
                target = Target("POST", path, {"grant_type": "client_credentials", "token": "x"})
                answer = await send(provider, target.request(target.encoded(), **HEADERS[case]))
                assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
                assert answer.headers["www-authenticate"].startswith("Basic")


async def test_who_names_two_clients_in_two_headers_is_none(provider, subtests):
    basic = [f"Basic {base64.b64encode(f'{name}:{provider.secret_of(name)}'.encode()).decode()}" for name in CLIENTS]
    headers = [("authorization", value) for value in basic] + [("content-type", FORM)]
    for path in ("/oauth2/token", "/oauth2/par", "/oauth2/revoke", "/oauth2/introspect"):
        with subtests.test(path):
            answer = await provider.http.post(path, content="grant_type=client_credentials&token=x", headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert (await provider.http.get("/v1/revocations", headers=headers)).status_code == 400
    assert (await provider.http.get("/oauth2/userinfo", headers=headers)).status_code == 401


async def test_another_method_is_told_which_there_are(provider, subtests):
    allowed: dict[str, set[str]] = {}
    for method, path, _ in TABLE:
        allowed.setdefault(path, set()).add(method)
    for path, methods in allowed.items():
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"} - methods:
            with subtests.test(f"{method} {path}"):
                answer = await provider.http.request(method, concrete(path))
                assert answer.status_code == 405
                assert methods <= {name.strip() for name in answer.headers["allow"].split(",")}


async def test_no_name_has_a_nul_wherever_it_comes_from(open_on_both, subtests):
    """PostgreSQL keeps no such texts, and cannot even look for them."""
    http, headers = open_on_both.http, {"authorization": "Bearer x"}
    for method, path, _ in TABLE:
        if "{" in path:
            with subtests.test(f"{method} {path}"):
                answer = await http.request(method, re.sub(r"\{\w+\}", "evs%00gui", path), headers=headers)
                assert 400 <= answer.status_code < 500, answer.text
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "evs\0gui"}).encode()).rstrip(b"=").decode()
    form = {"grant_type": "client_credentials", "client_assertion": f"eyJhbGciOiJFUzI1NiJ9.{claims}.AAAA"}
    answer = await open_on_both.token(**form, client_assertion_type=ASSERTION_TYPE)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")


METADATA = {"client_name": "Weather", "redirect_uris": ["https://weather.example/back"], "scope": "openid"}
MEMBERS = (
    *("redirect_uris", "post_logout_redirect_uris", "token_endpoint_auth_method", "grant_types", "response_types"),
    *("application_type", "client_name", "client_uri", "logo_uri", "policy_uri", "tos_uri", "contacts", "scope"),
    *("jwks", "jwks_uri", "software_id", "software_version", "id_token_signed_response_alg", "subject_type"),
    *("dpop_bound_access_tokens", "require_pushed_authorization_requests", "backchannel_logout_uri"),
)
NONSENSE = (
    *(None, True, -1, 1e300, 2**70, "", "a" * 30_000, "\0", "\ud800", "https://[", "javascript:alert(1)", "data:,x"),
    *(
        [],
        [None],
        [[]],
        {},
        {"keys": [{}]},
        ["https://x.test/", 7],
        "http://169.254.169.254/",
        ["https://x.test/ü"],
        ['https://x"\\'],
        "ü",
        ["ü"],
    ),
)


async def test_half_a_pair_that_json_can_say_is_refused_wherever_it_stands(provider, subtests):
    """RFC 8259 section 8.2: nothing could hash, seal or keep it, or even tell of it in UTF-8."""
    half, headers = "\ud800 correct horse battery staple", {"content-type": "application/json"}
    headers |= {"authorization": f"Bearer {await provider.admin_token()}"}
    upstream = {"id": "other", "name": "Other", "issuer": "https://other.test", "client_id": "evs"}
    for method, path, body in (
        ("POST", "/users", {"username": half}),
        ("POST", "/users", {"username": "eve", "name": half}),
        ("POST", "/users", {"username": "eve", "password": half}),
        ("POST", "/users/ada/reset-password", {"password": half}),
        ("PUT", "/users/ada/roles", {"roles": [half]}),
        ("POST", "/groups", {"name": half}),
        ("POST", "/registration-tokens", {"note": "x", "scopes": [half]}),
        ("POST", "/upstreams", upstream | {"client_secret": half}),
        ("POST", "/clients", {"id": "shop", "name": "Shop", "redirect_uris": [half]}),
    ):
        with subtests.test(path=path, body=list(body)):
            sent = {"content": json.dumps(body), "headers": headers}
            answer = await provider.http.request(method, f"/v1/admin{path}", **sent)
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:evs:problem:invalid-input")


async def test_metadata_of_a_client_may_be_any_nonsense(open_on_both, subtests):
    for member in MEMBERS:
        with subtests.test(member):
            for value in NONSENSE:
                headers = {"content-type": "application/json"}
                body = json.dumps(METADATA | {member: value})
                answer = await open_on_both.http.post("/oauth2/register", content=body, headers=headers)
                assert answer.status_code in (201, 400), answer.text
                if answer.status_code == 400:
                    assert answer.json()["error"].startswith("invalid_")
                    check_words(answer.json())
