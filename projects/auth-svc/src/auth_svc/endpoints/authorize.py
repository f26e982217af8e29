"""`/oauth2/authorize` and the consent form: load, decide, and let the browser go where the decision says."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.audit import Actor
from auth_svc.clients.client import Client, receiver_of
from auth_svc.clients.documents import DocumentRejected
from auth_svc.endpoints.oauth_http import REPEATABLE
from auth_svc.factors import held
from auth_svc.listed import scope_text
from auth_svc.pages.consent import consent_page
from auth_svc.pages.notices import sent_back_page
from auth_svc.parameters import parse, read_form
from auth_svc.people import accounts, consents
from auth_svc.people.consents import Consent
from auth_svc.people.sessions import Session
from auth_svc.protocol import authorization, effects, pushed_requests
from auth_svc.protocol.authorization_request import (
    AuthorizationRows,
    ConsentNeeded,
    FactorNeeded,
    Outcome,
    Refused,
    SendBack,
    SignInNeeded,
    StepNeeded,
)
from auth_svc.protocol.effects import Effect
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.pushed_requests import PREFIX
from auth_svc.protocol.token_rows import usable_client
from auth_svc.rate_limits import network_of
from auth_svc.service import AuthService, address_of, service_of
from auth_svc.site.browser import (
    PageRefused,
    Visitor,
    read_page_form,
    read_pairs,
    redirect,
    render,
    set_up_url,
    step_up_url,
    visitor_of,
)
from lib_events.database import Connection

PATH = "/oauth2/authorize"
MAX_QUERY = 8_192

type Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an authorization request names, and who looks."""

    client_id: str | None
    request_uri: str | None  # of a pushed request
    visitor: Visitor
    issuer: Issuer


async def authorize(request: Request) -> Response:
    """Send the browser back with a code, or ask the person first (RFC 6749 section 3.1)."""
    if request.method == "POST":
        # OpenID Connect Core section 3.1.2.1 allows POST; a cross-site one comes without our cookie, a GET with it.
        return redirect(f"{PATH}?{urlencode(await read_form(request, repeatable=REPEATABLE))}")
    query: str = request.scope["query_string"].decode(errors="replace")
    if len(query) > MAX_QUERY:
        raise PageRefused(414, "That request is too long", "Tell the developer of the application you came from.")
    service, visitor, pairs = service_of(request), await visitor_of(request), read_pairs(query)
    try:
        await service.client_documents.ensure(dict(pairs).get("client_id"), network_of(address_of(request)))
    except DocumentRejected as error:
        raise PageRefused(400, "That application cannot be recognised", f"{error}.", code="invalid_client") from error
    rows = await load(service, pairs, visitor)
    if rows.pushed is not None and rows.pushed.begun_at is None:
        await service.database.transact(pushed_requests.begin, rows.pushed.digest, _now(request))
        rows = await load(service, pairs, visitor)
    outcome = authorization.decide(service.issuer, pairs, rows, _now(request))
    return await _act(request, query, visitor, outcome)


async def consent(request: Request) -> Response:
    """Take the person's answer to the consent page, and decide the same request again with it."""
    service, visitor = service_of(request), await visitor_of(request)
    form = await read_page_form(request, visitor)
    query = form.get("request", "")
    pairs, now = read_pairs(query), _now(request)
    rows = await load(service, pairs, visitor)
    if form.get("decision") != "allow":
        return await _act(request, query, visitor, authorization.deny(service.issuer, pairs, rows, now))
    asked = authorization.decide(service.issuer, pairs, rows, now)
    allowed = asked if isinstance(asked, ConsentNeeded) else None
    if allowed is not None and scope_text(allowed.scopes) != form.get("scope", ""):
        return await _act(request, query, visitor, allowed)  # the client may have more by now: that, too, is asked for
    outcome = authorization.decide(service.issuer, pairs, rows, now, consented=True)
    return await _act(request, query, visitor, outcome, allowed=allowed)


async def load(service: AuthService, pairs: Pairs, visitor: Visitor) -> AuthorizationRows:
    """Read what an authorization request names."""
    return await service.database.look(_load, _asked(pairs, visitor, service.issuer))


def answered_at_once(connection: Connection, issuer: Issuer, way_on: str, *, visitor: Visitor, now: int) -> str | None:
    """Answer the request that a sign-in was for in the sign-in's own transaction; returns where the browser goes.

    None: there is no such request, or the person has to be asked something first, so they go there by themselves.
    """
    path, _, query = way_on.partition("?")
    if path != PATH or len(query) > MAX_QUERY:
        return None
    pairs = parse(query)
    rows = _load(connection, _asked(pairs, visitor, issuer))
    if rows.client is None or rows.client.origin == "document":  # whose document may have to be fetched again
        return None
    if rows.pushed is not None and rows.pushed.begun_at is None:  # no browser has come with it yet
        return None
    outcome = authorization.decide(issuer, pairs, rows, now)
    if not isinstance(outcome, SendBack) or outcome.action is not None:  # what is posted takes a page of ours
        return None
    if effects.commit(connection, outcome.effects, now) is not None:
        return None
    return outcome.location


async def client_behind(service: AuthService, way_on: str) -> tuple[str | None, tuple[str, ...]]:
    """The name of the client that a sign-in on the way to `way_on` is for, and where it may lead then."""
    path, _, query = way_on.partition("?")
    if path != PATH:
        return None, ()
    pairs = read_pairs(query)
    rows = await load(service, pairs, Visitor(None))
    outcome = authorization.decide(service.issuer, pairs, rows, service.clock.micros())
    if not isinstance(outcome, SignInNeeded) or rows.client is None:
        return None, ()
    return rows.client.name, (outcome.redirect_uri,)


async def oldest_sign_in(service: AuthService, way_on: str, visitor: Visitor) -> int | None:
    """How many seconds ago a sign-in on the way to `way_on` may have been made elsewhere; None: whenever."""
    path, _, query = way_on.partition("?")
    if path != PATH:
        return None
    pairs = read_pairs(query)
    rows = await load(service, pairs, visitor)
    outcome = authorization.decide(service.issuer, pairs, rows, service.clock.micros())
    return outcome.max_age if isinstance(outcome, SignInNeeded) else None


async def _act(
    request: Request, query: str, visitor: Visitor, outcome: Outcome, *, allowed: ConsentNeeded | None = None
) -> Response:
    match outcome:
        case Refused(error, description):
            text = f"{description} Tell the developer of the application you came from."
            raise PageRefused(400, "That request is not right", text, code=error)
        case SignInNeeded(wanted, _):
            return redirect(f"/login?next={quote(f'{PATH}?{wanted}', safe='')}")
        case StepNeeded(wanted, level):
            return redirect(step_up_url(f"{PATH}?{wanted}", level))
        case FactorNeeded(wanted):
            return redirect(set_up_url(f"{PATH}?{wanted}"))
        case ConsentNeeded(client, account, scopes, resources, redirect_uri):
            known = service_of(request).issuer.resources
            page = consent_page(
                csrf=visitor.csrf,
                query=query,
                client=client.name,
                username=account.username,
                scopes=scopes,
                origin=_vouching_host(client, redirect_uri),
                descriptions=known.descriptions,
                services=known.unspoken(resources, scopes),
            )
            return render(request, page, visitor=visitor, form_targets=(redirect_uri,))
        case SendBack():
            return await _send_back(request, outcome, visitor, allowed)


async def _send_back(request: Request, back: SendBack, visitor: Visitor, allowed: ConsentNeeded | None) -> Response:
    service, wanted = service_of(request), back.effects
    actor = service.actor(request, allowed.account.id if allowed else None)
    if wanted and not await service.database.transact(_commit, wanted, visitor.session, allowed, actor):
        text = (
            "You were signed out, what you had allowed was taken back, or your account has a second factor by now. "
            "Begin again at the application you came from."
        )
        raise PageRefused(409, "That is over", text)
    if back.action is None:
        return redirect(back.location)
    page = sent_back_page(action=back.action, fields=back.fields)
    return render(request, page, form_targets=(back.action,), scripted=True)


def _commit(
    connection: Connection,
    wanted: Sequence[Effect],
    session: Session | None,
    allowed: ConsentNeeded | None,
    actor: Actor,
) -> bool:
    if allowed is not None:
        accounts.lock(connection, allowed.account.id)  # before their session: another browser may allow the same now
        if session is None or held.lacks_factor(connection, allowed.account.id, session.methods):
            return False  # it has come while they read
    if effects.commit(connection, wanted, actor.at) is not None:
        return False
    if allowed is not None:
        given = Consent(allowed.scopes, frozenset(allowed.resources))
        consents.give(connection, allowed.account.id, allowed.client, given, actor)
    return True


def _asked(pairs: Pairs, visitor: Visitor, issuer: Issuer) -> _Asked:
    named = dict(reversed(pairs))
    request_uri = named.get("request_uri", "")
    pushed = request_uri if request_uri.startswith(PREFIX) else None
    return _Asked(named.get("client_id"), pushed, visitor, issuer)


def _load(connection: Connection, asked: _Asked) -> AuthorizationRows:
    client = usable_client(connection, asked.client_id, asked.issuer)
    account = asked.visitor.account
    pushed = pushed_requests.find(connection, asked.request_uri) if asked.request_uri else None
    if client is None or account is None:
        return AuthorizationRows(client, asked.visitor.session, account, pushed=pushed)
    return AuthorizationRows(
        client,
        asked.visitor.session,
        account,
        consent=consents.find(connection, account.id, client.id),
        pushed=pushed,
        factors=held.of_user(connection, account.id),
        needs_two=asked.issuer.needs_two_factors(account),
    )


def _vouching_host(client: Client, redirect_uri: str) -> str | None:
    """Who stands behind a client that no administrator has made: names can be chosen at will, hosts cannot."""
    match client.origin:
        case "document":
            return urlsplit(client.id).hostname
        case "registered":
            return receiver_of(redirect_uri)
        case _:
            return None


def _now(request: Request) -> int:
    return service_of(request).clock.micros()
