"""What can be done by, to and about one person, ready to be done many times at once."""

import itertools
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

CALLBACK = "https://shop.test/cb"
PASSWORD = "correct horse battery staple"
SCOPE = "openid offline_access workflows:read"
NUMBERS = itertools.count(1)


@dataclass
class Somebody:
    """A person with a role, a group, a client that they let in, and two browsers."""

    provider: Any
    admin: dict[str, str]
    name: str
    id: str
    role: str
    group: str
    client: tuple[str, str]
    browsers: list[Any]
    tokens: list[dict[str, Any]]

    @classmethod
    async def arrive(cls, provider, admin):
        number = next(NUMBERS)
        name, role, group, client = (f"{what}{number}" for what in ("person", "role", "group", "client"))
        await call(provider, admin, "POST", "/roles", {"name": role, "includes": ["operator"]})
        await call(provider, admin, "POST", "/groups", {"name": group, "roles": ["operator"]})
        account = await provider.add_user(name, role)
        await call(provider, admin, "PUT", f"/groups/{group}/members/{name}")
        kept = {"redirect_uris": (CALLBACK,), "scopes": frozenset(SCOPE.split())}
        auth = await provider.add_client(id=client, name=client, consent="once", **kept)
        browsers = [await provider.browser(), await provider.browser()]
        person = cls(provider, admin, name, account.id, role, group, auth, browsers, [])
        for browser in browsers:
            await browser.sign_in(name)
        await browsers[0].open(person.asked())
        person.tokens.append((await person.redeem(await browsers[0].submit(decision="allow"))).json())
        return person

    def asked(self):
        """What the client sends their browser with."""
        values = {"client_id": self.client[0], "redirect_uri": CALLBACK, "scope": SCOPE}
        return f"/oauth2/authorize?{urlencode(self.provider.request(**values))}"

    def redeem(self, answer):
        code, verifier = self.provider.answer(answer)["code"], self.provider.verifier
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": verifier}
        return self.provider.token(self.client, **form)

    def called(self, path):
        return path.format(name=self.name, role=self.role, group=self.group, client=self.client[0])


async def call(provider, admin, method, path, body=None):
    return await provider.http.request(method, f"/v1/admin{path}", json=body, headers=admin)


def administered(method, path, body=None):
    async def ready(person):
        said = {key: [person.called(each) for each in value] for key, value in body.items()} if body else body
        return lambda: call(person.provider, person.admin, method, person.called(path), said)

    return ready


def submitted(page, action, **values):
    """Send a form that the person's second browser shows."""

    async def ready(person):
        browser = person.browsers[1]
        await browser.open(page)
        shown = browser.page

        def send():
            mine = type(browser)(browser.http)
            mine.page = shown
            return mine.submit(action=action, **values)

        return send

    return ready


async def redeem(person):
    answer = await person.browsers[0].http.get(person.asked())
    return lambda: person.redeem(answer)


async def refresh(person):
    form = {"grant_type": "refresh_token", "refresh_token": person.tokens[0]["refresh_token"]}
    return lambda: person.provider.token(person.client, **form)


async def let_in(person):
    return lambda: person.browsers[0].http.get(person.asked())


async def sign_in(person):
    async def act():
        return await (await person.provider.browser()).sign_in(person.name)

    return act


COMMANDS = {
    "disable": administered("POST", "/users/{name}/disable"),
    "enable": administered("POST", "/users/{name}/enable"),
    "delete": administered("DELETE", "/users/{name}"),
    "take roles": administered("PUT", "/users/{name}/roles", {"roles": ["member"]}),
    "give roles": administered("PUT", "/users/{name}/roles", {"roles": ["member", "{role}"]}),
    "reset the password": administered("POST", "/users/{name}/reset-password", {}),
    "end sessions": administered("DELETE", "/users/{name}/sessions"),
    "withdraw": administered("DELETE", "/users/{name}/consents/{client}"),
    "leave the group": administered("DELETE", "/groups/{group}/members/{name}"),
    "join the group": administered("PUT", "/groups/{group}/members/{name}"),
    "empty the group": administered("PATCH", "/groups/{group}", {"roles": []}),
    "give the group": administered("PATCH", "/groups/{group}", {"roles": ["{role}"]}),
    "delete the group": administered("DELETE", "/groups/{group}"),
    "narrow the role": administered("PATCH", "/roles/{role}", {"includes": []}),
    "delete the role": administered("DELETE", "/roles/{role}"),
    "disable the client": administered("POST", "/clients/{client}/disable"),
    "enable the client": administered("POST", "/clients/{client}/enable"),
    "narrow the client": administered("PATCH", "/clients/{client}", {"scopes": ["openid"]}),
    "remove the client": administered("DELETE", "/clients/{client}"),
    "rotate the key": administered("POST", "/keys:rotate", {}),
    "redeem": redeem,
    "refresh": refresh,
    "let in": let_in,
    "sign in": sign_in,
    "sign out": submitted("/account", "/account/sign-out"),
    "sign out elsewhere": submitted("/account/sessions", "/account/end-other-sessions"),
    "change the password": submitted(
        "/account", "/account/password", current_password=PASSWORD, new_password=f"{PASSWORD} more"
    ),
    "leave": submitted("/account/data", "/account/delete", password=PASSWORD),
}
