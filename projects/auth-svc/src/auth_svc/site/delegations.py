"""`/account/apps/allow` and `…/end-delegation`: a person lets a client act for them later, and stops it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.clients.client import EXCHANGE, Client
from auth_svc.grants.delegating import ALLOW_PATH
from auth_svc.pages.delegations import allow_page, allowed_page
from auth_svc.people import consents, delegations
from auth_svc.people.accounts import Account
from auth_svc.people.consents import AWAY, Consent
from auth_svc.protocol.token_rows import usable_client
from auth_svc.rights.changes import NotThere
from auth_svc.rights.resources import Resource
from auth_svc.service import AuthService, service_of
from auth_svc.site.browser import PageRefused, read_page_form, read_pairs, redirect, render, visitor_of
from auth_svc.site.person import Person, for_people
from auth_svc.site.step_up import missing_factor
from lib_events.database import Connection

APPS = "/account/apps"
WRONG = "That request makes no sense"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a client wants to do for a person."""

    client: Client
    wanted: Sequence[tuple[Resource, frozenset[str]]]

    @property
    def consent(self) -> Consent:
        scopes = frozenset[str]().union(*(scopes for _, scopes in self.wanted))
        return Consent(scopes | {AWAY}, frozenset(resource.identifier for resource, _ in self.wanted))


async def allow_form(request: Request) -> Response:
    """Ask whoever is signed in; everybody else signs in first and comes back to the same question."""
    service, query = service_of(request), request.url.query
    visitor = await visitor_of(request)
    if visitor.account is None:
        return redirect(f"/login?next={quote(f'{ALLOW_PATH}?{query}', safe='')}")
    if (first := await missing_factor(request, visitor, f"{ALLOW_PATH}?{query}")) is not None:
        return first
    asked = await _read(service, query)
    page = allow_page(
        csrf=visitor.csrf,
        query=query,
        client=asked.client.name,
        username=visitor.account.username,
        wanted=asked.wanted,
    )
    return render(request, page, visitor=visitor)


@for_people
async def allow(request: Request, person: Person) -> Response:
    """Remember what the person allows; it is what later exchanges are checked against."""
    service, form = service_of(request), await read_page_form(request, person.visitor)
    asked = await _read(service, form.get("request", ""))
    if form.get("decision") != "allow":
        return redirect(APPS)
    await person.commit(request, partial(_give, client=asked.client, consent=asked.consent))
    return render(request, allowed_page(asked.client.name))


@for_people
async def end_delegation(request: Request, person: Person) -> Response:
    """Stop what acts for the person."""
    if (first := await missing_factor(request, person.visitor, APPS)) is not None:
        return first
    form = await read_page_form(request, person.visitor)
    with suppress(NotThere):  # it has just ended
        await person.commit(request, partial(_end, delegation=form.get("delegation", "")))
    return redirect(APPS)


def _end(connection: Connection, account: Account, actor: Actor, *, delegation: str) -> None:
    delegations.withdraw(connection, account.id, delegation, "withdrawn by its person", actor)


def _give(connection: Connection, account: Account, actor: Actor, *, client: Client, consent: Consent) -> None:
    if not clients.stays(connection, client.id):
        raise PageRefused(409, "That is over", f"There is no {client.name} any more. Nothing was allowed.")
    consents.remember(connection, account.id, client.id, consent, actor.at)
    consents.tell(connection, account.id, client.id, consent.scopes, actor)


async def _read(service: AuthService, query: str) -> _Asked:
    pairs = read_pairs(query)
    form = dict(pairs)
    client = await service.database.read(usable_client, form.get("client"), service.issuer)
    if client is None or not client.check_grant_type(EXCHANGE):
        raise PageRefused(400, WRONG, "It names no program that can act for people.", code="client")
    scopes = frozenset(form.get("scope", "").split())
    wanted = []
    for identifier in dict.fromkeys(value for name, value in pairs if name == "resource"):
        resource = service.issuer.resources.find(identifier)
        if resource is None or not (here := scopes & resource.scopes.keys()):
            raise PageRefused(400, WRONG, "It names a service or a permission that there is not.", code="resource")
        if client.id not in resource.actors and not here <= client.scopes:
            raise PageRefused(400, WRONG, f"{resource.name} does not let {client.name} act for people.", code="actor")
        wanted.append((resource, here))
    if not wanted or not scopes <= frozenset[str]().union(*(here for _, here in wanted)):
        raise PageRefused(400, WRONG, "It names a service or a permission that there is not.", code="scope")
    return _Asked(client, wanted)
