"""What protects pages: cookies that only this service gets, the exact Origin, a token in every form, a strict CSP."""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import htpy as h
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from auth_svc import opaque
from auth_svc.pages.account_frame import SECTIONS
from auth_svc.pages.upstream import CONNECT
from auth_svc.parameters import ParametersRejected, check_once, parse
from auth_svc.people import accounts, devices, sessions
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import Session
from auth_svc.protocol.issuer import Issuer
from auth_svc.proving import known_browsers
from auth_svc.proving.known_browsers import LIFETIME_SECONDS as KNOWN_SECONDS
from auth_svc.proving.known_browsers import KnownBrowser
from auth_svc.proving.sign_ins import LIFETIME_SECONDS as STEP_SECONDS
from auth_svc.service import act_as, service_of
from auth_svc.upstreams.arrivals import LIFETIME_SECONDS as ARRIVAL_SECONDS
from lib_events.database import Connection

CSRF_FIELD = "csrf"
GUEST_SECONDS = 3600
UPSTREAM_SECONDS = 600
AGAIN = "?again=yes"  # in a way on: what is there takes a sign-in of just now
OF_PROGRAMS = ("/oauth2/authorize", "/device", "/account/apps/allow")  # where programs send people
WAYS_ON = frozenset((*OF_PROGRAMS, CONNECT, *(path for path, _ in SECTIONS)))  # a sign-in leads to


class PageRefused(Exception):
    """A page cannot be shown or a form not be taken; the person reads `title` and `text`, a developer `code`."""

    def __init__(
        self, status: int, title: str, text: str, *, code: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.text = text
        self.code = code
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page; signed in when there is an account."""

    cookie: str | None = field(repr=False)  # of the session, or of a guest
    session: Session | None = None
    account: Account | None = None

    @property
    def csrf(self) -> str:
        """The token for this browser's forms: only who knows the cookie can make it."""
        mac = hmac.digest((self.cookie or "").encode(), b"evs-auth csrf", hashlib.sha256)
        return base64.urlsafe_b64encode(mac).decode()


def cookie_name(issuer: Issuer) -> str:
    """Cookies ignore ports, so on loopback the name carries it; on https the prefix binds it to the host."""
    return "__Host-evs-auth" if issuer.secure else f"evs-auth-{urlsplit(issuer.url).port or 80}"


def guest_cookie_name(issuer: Issuer) -> str:
    """The cookie of a browser that is not signed in."""
    return cookie_name(issuer) + "-guest"


def step_cookie_name(issuer: Issuer) -> str:
    """The cookie of a browser between the steps of a sign-in."""
    return cookie_name(issuer) + "-step"


def known_cookie_name(issuer: Issuer) -> str:
    """The cookie of a browser that somebody has signed in with before."""
    return cookie_name(issuer) + "-known"


def upstream_cookie_name(issuer: Issuer) -> str:
    """The cookie of a browser that is on its way to another provider and back."""
    return cookie_name(issuer) + "-upstream"


def upstream_cookie_of(request: Request) -> str:
    """What ties this browser to its way; empty when it is on none."""
    return request.cookies.get(upstream_cookie_name(service_of(request).issuer), "")


def arrival_cookie_name(issuer: Issuer) -> str:
    """The cookie of a browser that came from another provider and has to prove more."""
    return cookie_name(issuer) + "-arrival"


def arrival_cookie_of(request: Request) -> str:
    """What ties this browser to its arrival; empty when there is none."""
    return request.cookies.get(arrival_cookie_name(service_of(request).issuer), "")


def step_cookie_of(request: Request) -> str:
    """What ties this browser to its sign-in under way; empty when there is none."""
    return request.cookies.get(step_cookie_name(service_of(request).issuer), "")


async def visitor_of(request: Request) -> Visitor:
    """Return who looks; a guest without a cookie gets one from `render`."""
    service = service_of(request)
    cookie = request.cookies.get(cookie_name(service.issuer))
    if cookie is not None:
        session, account = await service.database.look(_load, cookie)
        now = service.clock.micros()
        if session is not None and account is not None and session.is_alive(now):
            if now - (session.last_seen_at or 0) > devices.SEEN_EVERY_SECONDS * devices.MICROS:
                await service.database.transact(devices.saw, session.id, now)
            act_as(account.id)
            return Visitor(cookie, session, account)
    return Visitor(request.cookies.get(guest_cookie_name(service.issuer)) or opaque.new_secret())


async def read_page_form(request: Request, visitor: Visitor) -> dict[str, str]:
    """Return a form that this browser sent from one of our own pages; raises `PageRefused`."""
    # The exact origin: null, missing and same-site ones are not ours (RFC 6454 section 7.3).
    if request.headers.getlist("origin") != [origin_of(service_of(request).issuer.url)]:
        raise PageRefused(403, "That form did not come from here", "Go back, reload the page and try again.")
    form = read_once(await request.body())
    if not hmac.compare_digest(form.get(CSRF_FIELD, "").encode(), visitor.csrf.encode()):
        raise PageRefused(403, "That form is out of date", "Go back, reload the page and try again.")
    return form


def read_pairs(encoded: bytes | str) -> list[tuple[str, str]]:
    """Return parameters that a browser brings; raises `PageRefused`."""
    try:
        return parse(encoded)
    except ParametersRejected as error:
        raise PageRefused(400, "That request cannot be read", error.description) from error


def read_once(encoded: bytes | str) -> dict[str, str]:
    """Return parameters of which none comes twice; raises `PageRefused`."""
    pairs = read_pairs(encoded)
    try:
        check_once(pairs)
    except ParametersRejected as error:
        raise PageRefused(400, "That request cannot be read", error.description) from error
    return dict(pairs)


def origin_of(url: str) -> str:
    """The origin of a page."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def render(
    request: Request,
    page: h.Renderable,
    *,
    visitor: Visitor | None = None,
    status: int = 200,
    form_targets: Iterable[str] = (),
    scripted: bool = False,
) -> Response:
    """Answer with a page; `form_targets` are the URLs its forms may lead to beyond our own pages."""
    issuer, response = service_of(request).issuer, HTMLResponse(str(page), status)
    _protect(response, form_targets, scripted=scripted)
    if issuer.secure:
        response.headers["strict-transport-security"] = "max-age=31536000"
    if visitor is not None and visitor.account is None and visitor.cookie is not None:
        _set(response, issuer, guest_cookie_name(issuer), visitor.cookie, GUEST_SECONDS)
    return response


def redirect(location: str) -> Response:
    """Send the browser on with GET (RFC 9700 section 4.12: 303, so that no form is sent again)."""
    response = RedirectResponse(location, 303)
    response.headers.update({"cache-control": "no-store", "referrer-policy": "no-referrer"})
    return response


def sign_in_browser(response: Response, issuer: Issuer, cookie: str) -> None:
    """Give the browser its session; the guest's cookie goes, so nothing from before the sign-in is worth anything."""
    _set(response, issuer, cookie_name(issuer), cookie, issuer.session_seconds)
    response.delete_cookie(guest_cookie_name(issuer), secure=issuer.secure, httponly=True, samesite="lax")


def give_step_cookie(response: Response, issuer: Issuer, cookie: str) -> None:
    """Tie the browser to its sign-in until the next step."""
    _set(response, issuer, step_cookie_name(issuer), cookie, STEP_SECONDS)


def take_step_cookie(response: Response, issuer: Issuer) -> None:
    """The sign-in is complete."""
    response.delete_cookie(step_cookie_name(issuer), secure=issuer.secure, httponly=True, samesite="lax")


def give_upstream_cookie(response: Response, issuer: Issuer, cookie: str) -> None:
    """Tie the browser to its way to another provider and back."""
    _set(response, issuer, upstream_cookie_name(issuer), cookie, UPSTREAM_SECONDS)


def give_arrival_cookie(response: Response, issuer: Issuer, cookie: str) -> None:
    """Tie the browser to its arrival until it has proven more."""
    _set(response, issuer, arrival_cookie_name(issuer), cookie, ARRIVAL_SECONDS)


def take_arrival_cookie(response: Response, issuer: Issuer) -> None:
    """The arrival is used up."""
    response.delete_cookie(arrival_cookie_name(issuer), secure=issuer.secure, httponly=True, samesite="lax")


def sign_out_browser(response: Response, issuer: Issuer) -> None:
    """Take the browser's session away."""
    response.delete_cookie(cookie_name(issuer), secure=issuer.secure, httponly=True, samesite="lax")


def known_browser_of(request: Request) -> KnownBrowser:
    """The browser as we know it, or as one that we never saw."""
    service = service_of(request)
    cookie = request.cookies.get(known_cookie_name(service.issuer), "")
    return known_browsers.read(cookie, service.sealing_key)


def remember_browser(request: Request, response: Response, user_id: str) -> None:
    """Know the browser again in which somebody has shown who they are."""
    service = service_of(request)
    browser = known_browser_of(request).with_person(user_id, service.clock.micros())
    cookie = known_browsers.write(browser, service.sealing_key)
    _set(response, service.issuer, known_cookie_name(service.issuer), cookie, KNOWN_SECONDS)


def step_up_url(target: str, level: str) -> str:
    """Where somebody who is signed in proves one more factor on the way to `target`."""
    return f"/login/step-up?{urlencode({'level': level, 'next': target})}"


def set_up_url(target: str) -> str:
    """Where somebody sets up a second factor on the way to `target`."""
    return f"/account/security?{urlencode({'next': target})}"


def confirm_url(path: str) -> str:
    """Where somebody proves once more who they are, to go on to one of our own pages."""
    return f"/login?{urlencode({'next': path + AGAIN})}"


def way_on(wanted: str | None) -> str:
    """Return where to go after a sign-in: one of our own pages, whatever was asked for."""
    try:
        parts = urlsplit(wanted or "")
    except ValueError:
        return "/account"
    if not parts.scheme and not parts.netloc and parts.path in WAYS_ON:
        return parts.path + (f"?{parts.query}" if parts.query else "")
    return "/account"


def _load(connection: Connection, cookie: str) -> tuple[Session | None, Account | None]:
    session = sessions.find_by_cookie(connection, cookie)
    return session, accounts.find(connection, session.user_id) if session else None


def _protect(response: Response, form_targets: Iterable[str], *, scripted: bool) -> None:
    """Set the headers of every page."""
    script = "script-src 'self'; " if scripted else ""
    policy = (
        f"default-src 'none'; {script}style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'; "
        f"form-action {' '.join(("'self'", *map(_form_source, form_targets)))}"
    )
    response.headers.update(
        {
            "content-security-policy": policy,
            "referrer-policy": "same-origin",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "cross-origin-opener-policy": "same-origin",
            "cache-control": "no-store",
        }
    )


def _form_source(url: str) -> str:
    """The origin; but a policy has no words for IPv6 addresses (CSP3 section 2.3.1), so for those all of the scheme.

    An app's own scheme has no origin either.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}:" if "[" in parts.netloc or not parts.netloc else origin_of(url)


def _set(response: Response, issuer: Issuer, name: str, value: str, seconds: int) -> None:
    response.set_cookie(name, value, max_age=seconds, path="/", secure=issuer.secure, httponly=True, samesite="lax")
