"""What else can be done at an AuthService, each ready to be done about a person of its own and their client.

With what is in `about_one_person` these are all the commands that people, programs and administrators have.
"""

import re
from urllib.parse import urlencode, urlsplit

import pyotp
from about_one_person import CALLBACK, PASSWORD, SCOPE, call, submitted
from delegating_app import ACCESS_TOKEN, DELEGATION, EXCHANGE, ORDERS
from lying_provider import BODY, come_back, leave
from software_passkey import SoftwarePasskey, options_of

from lib_auth.client import DEVICE_GRANT
from lib_events.testing import wait_until

SECURITY, APPS = "/account/security", "/account/apps"
ISSUER = "http://localhost:8001"  # browsers make no passkeys for an address
METADATA = {"redirect_uris": ["https://dcr.test/cb"], "client_name": "Registered"}
TWO_FACTORS = "urn:evs:acr:2"


async def prepare(provider, admin):
    """Have what all of them share: a service to act at, another provider to come from, a key for who wants RSA."""
    scopes = {"orders:read": "See your orders"}
    resource = {"id": "orders", "identifier": ORDERS, "name": "Orders", "scopes": scopes, "actors": ["evs-app"]}
    for path, body in (("/resources", resource), ("/upstreams", BODY | {"makes_accounts": True})):
        made = await call(provider, admin, "POST", path, body)
        assert made.status_code == 201, made.text
    await provider.http.post("/oauth2/register", json=METADATA)  # the key of its ID tokens is made for the first


def asked(method, path, body=None):
    """Ask as an administrator; path and texts name the person, or what is theirs."""

    async def ready(person):
        said = body and {key: person.called(value) if isinstance(value, str) else value for key, value in body.items()}
        return lambda: call(person.provider, person.admin, method, person.called(path), said)

    return ready


def posted(person, path, form, auth=None):
    return lambda: person.provider.post(path, form, auth)


def sent(browser, **values):
    """Send a form of the page that the browser shows, as often as it is called."""
    shown = browser.page

    def send():
        mine = type(browser)(browser.http)
        mine.page = shown
        return mine.submit(**values)

    return send


async def at(browser, path):
    """Another window of the same browser."""
    mine = type(browser)(browser.http)
    await mine.open(path)
    return mine


def path_of(url):
    return urlsplit(url)._replace(scheme="", netloc="").geturl()


async def addressed(person):
    """Somebody else, whose address is proven."""
    name = f"{person.name}-mailed"
    await person.provider.add_user(name, email=f"{name}@home.test")
    browser = await person.provider.browser()
    await browser.sign_in(name)
    return name, browser


async def link(person, kind, to):
    """Wait for a mail to that address and return where its link leads."""
    mails = person.provider.settings.mails
    found = await wait_until(lambda: [each for each in map(read, mails.glob(f"*-{kind}-*.eml")) if f"To: {to}" in each])
    return re.search(rf"{ISSUER}(/\S+)", found[0])[1]


def read(path):
    return path.read_text()


# --- what programs ask for


async def revoke(person):
    return posted(person, "/oauth2/revoke", {"token": person.tokens[0]["refresh_token"]}, person.client)


async def revoke_access(person):
    return posted(person, "/oauth2/revoke", {"token": person.tokens[0]["access_token"]}, person.client)


async def refresh_by_name(person):
    """A refresh that says who asks: whoever lost its answer asks again."""
    form = {"grant_type": "refresh_token", "refresh_token": person.tokens[0]["refresh_token"]}
    named = {"idempotency-key": f"of {person.name}"}
    return lambda: person.provider.http.post("/oauth2/token", data=form, headers=named, auth=person.client)


async def push(person):
    form = person.provider.request(client_id=person.client[0], redirect_uri=CALLBACK, scope=SCOPE)
    return posted(person, "/oauth2/par", form, person.client)


async def come_with_pushed(person):
    told = (await (await push(person))()).json()["request_uri"]
    query = urlencode({"client_id": person.client[0], "request_uri": told})
    return lambda: person.browsers[0].http.get(f"/oauth2/authorize?{query}")


async def credentials(person):
    auth = await person.provider.add_client(
        id=f"robot-{person.name}", name="Robot", grant_types=("client_credentials",)
    )
    return posted(person, "/oauth2/token", {"grant_type": "client_credentials"}, auth)


async def start_device(person):
    return posted(person, "/oauth2/device_authorization", {"client_id": "evs-cli", "scope": "openid workflows:read"})


async def shown_device(person):
    device = (await (await start_device(person))()).json()
    browser = await at(person.browsers[1], device["verification_uri_complete"])
    await browser.submit()
    return device, browser


async def allow_device(person):
    _, browser = await shown_device(person)
    return sent(browser, decision="allow")


async def deny_device(person):
    _, browser = await shown_device(person)
    return sent(browser, decision="deny")


async def poll_device(person):
    device, browser = await shown_device(person)
    await browser.submit(decision="allow")
    form = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"], "client_id": "evs-cli"}
    return posted(person, "/oauth2/token", form)


async def gui_token(person):
    """What the GUI got for the person: the AppService takes it."""
    answer = await person.browsers[0].http.get(f"/oauth2/authorize?{urlencode(person.provider.request())}")
    return (await person.provider.redeem(person.provider.answer(answer)["code"])).json()["access_token"]


def app(person):
    return "evs-app", person.provider.secret_of("evs-app")


async def exchange(person):
    token = await gui_token(person)
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
    return posted(person, "/oauth2/token", form, app(person))


async def let_act(person):
    query = urlencode({"client": "evs-app", "scope": "orders:read", "resource": ORDERS})
    return sent(await at(person.browsers[0], f"{APPS}/allow?{query}"), decision="allow")


async def delegate(person):
    await (await let_act(person))()
    form = {"grant_type": EXCHANGE, "subject_token": await gui_token(person), "subject_token_type": ACCESS_TOKEN}
    form |= {"requested_token_type": DELEGATION, "scope": "orders:read", "resource": ORDERS, "purpose": "a run"}
    return posted(person, "/oauth2/token", form, app(person))


async def delegation(person):
    return (await (await delegate(person))()).json()["access_token"]


async def act_for(person):
    form = {"grant_type": EXCHANGE, "subject_token": await delegation(person), "subject_token_type": DELEGATION}
    return posted(person, "/oauth2/token", form | {"resource": ORDERS}, app(person))


async def end_delegation(person):
    await delegation(person)
    listed = (await call(person.provider, person.admin, "GET", f"/users/{person.name}/delegations")).json()["items"]
    return await asked("DELETE", f"/users/{{name}}/delegations/{listed[0]['id']}")(person)


async def register_client(person):
    return lambda: person.provider.http.post("/oauth2/register", json=METADATA)


async def register_by_token(person):
    made = await call(person.provider, person.admin, "POST", "/registration-tokens", {"note": person.name, "uses": 1})
    headers = {"authorization": f"Bearer {made.json()['token']}"}
    return lambda: person.provider.http.post("/oauth2/register", json=METADATA, headers=headers)


def managed(method, **changes):
    async def ready(person):
        made = (await (await register_client(person))()).json()
        path = f"/oauth2/register/{made['client_id']}"
        headers = {"authorization": f"Bearer {made['registration_access_token']}"}
        body = METADATA | {"client_id": made["client_id"]} | changes if method == "PUT" else None
        return lambda: person.provider.http.request(method, path, json=body, headers=headers)

    return ready


# --- what people do


async def consent(person):
    request = person.provider.request(client_id=person.client[0], redirect_uri=CALLBACK, scope="openid profile")
    browser = await at(person.browsers[0], f"/oauth2/authorize?{urlencode(request | {'prompt': 'consent'})}")
    return sent(browser, decision="allow")


async def sign_in_for_client(person):
    browser = await person.provider.browser()
    await browser.open(f"/oauth2/authorize?{urlencode(person.provider.request())}")
    return sent(browser, username=person.name, password=PASSWORD)


async def sign_in_wrongly(person):
    browser = await person.provider.browser()
    await browser.open("/login")
    return sent(browser, username=person.name, password="wrong")


async def sign_up(person):
    browser = await person.provider.browser()
    await browser.open("/register")
    return sent(browser, username=f"{person.name}-new", password=PASSWORD, email=f"{person.name}@new.test")


async def sign_up_invited(person):
    made = await call(person.provider, person.admin, "POST", "/invitations", {"roles": ["operator"]})
    browser = await person.provider.browser()
    await browser.open(path_of(made.json()["link"]))
    return sent(browser, username=f"{person.name}-invited", password=PASSWORD)


async def change_address(person):
    _, browser = await addressed(person)
    await browser.open("/account")
    return sent(browser, action="/account/email", email=f"{person.name}-mailed@new.test", password=PASSWORD)


async def confirm_address(person):
    await (await change_address(person))()
    browser = await person.provider.browser()
    await browser.open(await link(person, "verify", f"{person.name}-mailed@new.test"))
    return sent(browser)


async def ask_to_recover(person):
    name, _ = await addressed(person)
    browser = await person.provider.browser()
    await browser.open("/recover")
    return sent(browser, wanted=name)


async def recover(person):
    await (await ask_to_recover(person))()
    browser = await person.provider.browser()
    await browser.open(await link(person, "recover", f"{person.name}-mailed@home.test"))
    return sent(browser, new_password=f"{PASSWORD} recovered")


async def confirm_app(person):
    browser = await at(person.browsers[1], SECURITY)
    page = await browser.submit(action=f"{SECURITY}/app")
    secret = page.text.split('class="secret"><code>')[1].split("<")[0].replace(" ", "")
    return sent(browser, code=pyotp.TOTP(secret).now())


async def pass_second_step(person):
    secret = await person.browsers[1].set_up_app()
    browser = await person.provider.browser()
    await browser.sign_in(person.name)
    return sent(browser, code=person.provider.code_of_app(secret))


async def step_up(person):
    secret = await person.browsers[1].set_up_app()
    browser = await at(person.browsers[0], f"/login/step-up?{urlencode({'level': TWO_FACTORS, 'next': '/account'})}")
    return sent(browser, code=person.provider.code_of_app(secret))


async def remove_app(person):
    await person.browsers[1].set_up_app()
    return sent(await at(person.browsers[1], SECURITY), action=f"{SECURITY}/app/remove")


async def add_passkey(person, passkey=None):
    browser, passkey = await at(person.browsers[1], SECURITY), passkey or SoftwarePasskey()
    said = passkey.create(options_of(browser.page, f"{SECURITY}/passkeys"), origin=ISSUER)
    return sent(browser, action=f"{SECURITY}/passkeys", credential=said, name="key")


async def sign_in_by_passkey(person):
    passkey = SoftwarePasskey()
    await (await add_passkey(person, passkey))()
    browser = await at(await person.provider.browser(), "/login")
    said = passkey.get(options_of(browser.page, "/login/passkey"), origin=ISSUER)
    return sent(browser, action="/login/passkey", credential=said)


async def go_elsewhere(person):
    browser = await person.provider.browser()
    return lambda: browser.http.get("/login/upstream/example", params={"next": "/account"})


def of_elsewhere(person, browser, wanted, **claims):
    """Come back from the other provider as somebody."""
    person.provider.liar.nonce, person.provider.liar.lies = wanted["nonce"], {"claims": claims}
    return lambda: come_back(type(browser)(browser.http), wanted)


def somebody(person, **more):
    return {"sub": f"of-{person.name}", "preferred_username": f"{person.name}-else", "email_verified": True} | more


async def come_from_elsewhere(person):
    browser = await person.provider.browser()
    claims = somebody(person, email=f"{person.name}@else.test")
    return of_elsewhere(person, browser, await leave(browser), **claims)


async def come_again_from_elsewhere(person):
    await (await come_from_elsewhere(person))()
    return await come_from_elsewhere(person)


async def come_with_a_known_address(person):
    name, _ = await addressed(person)
    browser = await person.provider.browser()
    return of_elsewhere(person, browser, await leave(browser), **somebody(person, email=f"{name}@home.test"))


async def known_elsewhere(person):
    """Their browser, after they have come from elsewhere and shown that the account here is theirs, too."""
    name, _ = await addressed(person)
    browser = await person.provider.browser()
    wanted = await leave(browser)
    back = of_elsewhere(person, browser, wanted, **somebody(person, email=f"{name}@home.test"))
    browser.page = await back()
    await browser.submit(username=name, password=PASSWORD)
    return browser


async def join(person):
    return sent(await known_elsewhere(person), action="/login/connect")


async def connecting(person):
    browser = await at(person.browsers[1], SECURITY)
    page = await browser.submit(action=f"{SECURITY}/upstreams/example")
    location = page.text.split('class="button primary" href="')[1].split('"')[0].replace("&amp;", "&")
    wanted = dict(pair.split("=") for pair in urlsplit(location).query.split("&"))
    return of_elsewhere(person, browser, wanted, **somebody(person, email=f"{person.name}@else.test"))


async def disconnect(person):
    await (await connecting(person))()
    return sent(await at(person.browsers[1], SECURITY), action=f"{SECURITY}/upstreams/disconnect")


async def ask_for_role(person):
    await call(person.provider, person.admin, "POST", "/roles", {"name": f"wanted-{person.name}"})
    headers = {"authorization": f"Bearer {await gui_token(person)}"}
    body = {"role": f"wanted-{person.name}", "reason": "because"}
    return lambda: person.provider.http.post("/v1/access-requests", json=body, headers=headers)


async def take_data(person):
    return lambda: person.browsers[1].http.get("/account/data/export")


# --- what administrators do


def made_before(path, body, method, then, said=None):
    """Do something to what is made first; `{made}` is its id."""

    async def ready(person):
        made = (await (await asked("POST", path, body)(person))()).json()
        named = then.replace("{made}", str(made.get("id") or made["name"]))
        return await asked(method, named, said)(person)

    return ready


async def end_one_session(person):
    listed = (await call(person.provider, person.admin, "GET", f"/users/{person.name}/sessions")).json()["items"]
    return await asked("DELETE", f"/users/{{name}}/sessions/{listed[0]['id']}")(person)


async def import_document(person):
    name = person.name
    document = (await call(person.provider, person.admin, "GET", "/export")).json() | {"users": [], "upstreams": []}
    scopes = {f"{name}:x": "x"}
    document["resources"] = [{"id": f"i-{name}", "identifier": f"https://{name}.test", "name": "I", "scopes": scopes}]
    document["roles"] = [{"name": f"i-{name}"}]
    document["groups"] = [{"name": f"i-{name}", "roles": [f"i-{name}"]}]
    document["clients"] = [{"id": f"i-{name}", "name": "I", "redirect_uris": [CALLBACK]}]
    document["users"] = [{"username": f"i-{name}", "roles": ["member"], "groups": [f"i-{name}"]}]
    return lambda: call(person.provider, person.admin, "POST", "/import", document)


def resource(prefix):
    name = f"{prefix}-{{name}}"
    return {"id": name, "identifier": f"https://{name}.test", "name": "R"}


ROLE, INVITATION, NOTE = {"name": "r-{name}"}, {"email": "{name}@invited.test"}, {"note": "{name}"}
EVERYTHING = {
    "revoke": revoke,
    "revoke an access token": revoke_access,
    "refresh by name": refresh_by_name,
    "push a request": push,
    "come with a pushed request": come_with_pushed,
    "sign in by credentials": credentials,
    "start a device": start_device,
    "allow a device": allow_device,
    "deny a device": deny_device,
    "poll for a device": poll_device,
    "exchange": exchange,
    "let a service act": let_act,
    "delegate": delegate,
    "act for somebody": act_for,
    "end a delegation": end_delegation,
    "register a client": register_client,
    "register a client by a token": register_by_token,
    "a client changes itself": managed("PUT", client_name="Changed"),
    "a client removes itself": managed("DELETE"),
    "consent": consent,
    "sign in for a client": sign_in_for_client,
    "sign in wrongly": sign_in_wrongly,
    "sign up": sign_up,
    "sign up by an invitation": sign_up_invited,
    "change the name": submitted("/account", "/account/name", name="Another"),
    "change the address": change_address,
    "confirm an address": confirm_address,
    "ask to recover": ask_to_recover,
    "recover": recover,
    "set up an app": submitted(SECURITY, f"{SECURITY}/app"),
    "confirm an app": confirm_app,
    "remove an app": remove_app,
    "pass the second step": pass_second_step,
    "step up": step_up,
    "add a passkey": add_passkey,
    "sign in by a passkey": sign_in_by_passkey,
    "go elsewhere": go_elsewhere,
    "come from elsewhere": come_from_elsewhere,
    "come again from elsewhere": come_again_from_elsewhere,
    "come with a known address": come_with_a_known_address,
    "join": join,
    "connect": connecting,
    "disconnect": disconnect,
    "ask for a role": ask_for_role,
    "take all data": take_data,
    "withdraw an app": submitted(APPS, f"{APPS}/withdraw"),
    "end a session": submitted("/account/sessions", "/account/end-session"),
    "make a user": asked("POST", "/users", {"username": "{name}-made"}),
    "change a user": asked("PATCH", "/users/{name}", {"name": "Another"}),
    "take the factors": asked("DELETE", "/users/{name}/factors"),
    "end one session": end_one_session,
    "make a role": asked("POST", "/roles", {"name": "more-{name}"}),
    "remove a role": made_before("/roles", ROLE, "DELETE", "/roles/{made}"),
    "make a group": asked("POST", "/groups", {"name": "more-{name}"}),
    "invite": asked("POST", "/invitations", INVITATION),
    "withdraw an invitation": made_before("/invitations", INVITATION, "POST", "/invitations/{made}/revoke"),
    "issue a registration token": asked("POST", "/registration-tokens", NOTE),
    "take a registration token": made_before("/registration-tokens", NOTE, "DELETE", "/registration-tokens/{made}"),
    "make a client": asked("POST", "/clients", {"id": "more-{client}", "name": "C"}),
    "rotate a secret": asked("POST", "/clients/{client}/rotate-secret"),
    "make a resource": asked("POST", "/resources", resource("made")),
    "change a resource": made_before("/resources", resource("kept"), "PATCH", "/resources/{made}", {"name": "Other"}),
    "rotate a resource's secret": made_before(
        "/resources", resource("kept"), "POST", "/resources/{made}/rotate-secret"
    ),
    "remove a resource": made_before("/resources", resource("kept"), "DELETE", "/resources/{made}"),
    "import": import_document,
}
