"""An authorization request, the rows it names, and everything that can come of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from auth_svc.clients.client import Client
from auth_svc.factors.held import NOTHING, Factors
from auth_svc.people.accounts import Account
from auth_svc.people.consents import Consent
from auth_svc.people.sessions import Session
from auth_svc.protocol.effects import Effect
from auth_svc.protocol.issuer import Issuer
from auth_svc.protocol.pushed_requests import PushedRequest
from auth_svc.protocol.request import ProtocolRequest

QUERY, FORM_POST = RESPONSE_MODES = ("query", "form_post")


@dataclass(frozen=True, slots=True)
class AuthorizationRows:
    """What was loaded for the request."""

    client: Client | None = None
    session: Session | None = None
    account: Account | None = None
    consent: Consent | None = None
    pushed: PushedRequest | None = None
    factors: Factors = NOTHING  # what the person has beside the password
    needs_two: bool = False  # a role of theirs takes two factors


@dataclass(frozen=True, slots=True)
class Refused:
    """The request cannot even be answered to the client: the person sees an error page."""

    error: str
    description: str


@dataclass(frozen=True, slots=True)
class SendBack:
    """The browser goes back to the client, with a code (and `effects`) or with an error."""

    location: str = field(repr=False)
    effects: Sequence[Effect] = ()
    refused: Refused | None = None  # what the client is told
    action: str | None = None  # the redirect URI, where the answer is posted there instead of being in its query

    @property
    def fields(self) -> Sequence[tuple[str, str]]:
        """The answer as a form has it."""
        return parse_qsl(self.location.removeprefix(self.action or "").lstrip("?&"))


@dataclass(frozen=True, slots=True)
class SignInNeeded:
    """The person has to sign in first, and comes back with `query`."""

    query: str
    redirect_uri: str
    max_age: int | None = None  # how many seconds ago they may have done it; None: whenever


@dataclass(frozen=True, slots=True)
class StepNeeded:
    """The person is signed in and has to prove one more factor for `level`, and comes back with `query`."""

    query: str
    level: str


@dataclass(frozen=True, slots=True)
class FactorNeeded:
    """The person has to set up a second factor before anything else, and comes back with `query`."""

    query: str


@dataclass(frozen=True, slots=True)
class ConsentNeeded:
    """The person has to be asked."""

    client: Client
    account: Account
    scopes: frozenset[str]
    resources: tuple[str, ...]
    redirect_uri: str


type Outcome = Refused | SendBack | SignInNeeded | StepNeeded | FactorNeeded | ConsentNeeded


@dataclass(slots=True)
class AuthorizationRequest:
    """A request whose client, redirect URI, PKCE challenge and scope Authlib has accepted."""

    issuer: Issuer
    pairs: Sequence[tuple[str, str]]
    rows: AuthorizationRows
    now: int
    consented: bool
    request: ProtocolRequest
    redirect_uri: str
    prompts: frozenset[str] = frozenset()
    hinted: str | None = None  # whom the client expects
    resources: tuple[str, ...] = ()

    @property
    def data(self) -> dict[str, str]:
        """Its parameters."""
        return self.request.form

    @property
    def scopes(self) -> frozenset[str]:
        """What it asks for."""
        return frozenset(str(self.request.scope).split())


def refuse(request: AuthorizationRequest, error: str, description: str) -> SendBack:
    """Send the browser back to the client with an error (RFC 6749 section 4.1.2.1)."""
    return send_error(request.issuer, request.redirect_uri, request.data, error, description)


def send_error(issuer: Issuer, redirect_uri: str, data: Mapping[str, str], error: str, description: str) -> SendBack:
    """Send the browser to a redirect URI that is certain, with an error; `data` is what was asked for."""
    answer = {"error": error, "error_description": description, "state": data.get("state")}
    location = add_to(redirect_uri, {name: value for name, value in answer.items() if value})
    action = action_of(redirect_uri, data)
    return SendBack(with_issuer(issuer, location), refused=Refused(error, description), action=action)


def action_of(redirect_uri: str, data: Mapping[str, str]) -> str | None:
    """Return where the answer is posted (OAuth 2.0 Form Post Response Mode); an app's own scheme takes no forms."""
    is_posted = data.get("response_mode") == FORM_POST and redirect_uri.startswith(("https://", "http://"))
    return redirect_uri if is_posted else None


def with_issuer(issuer: Issuer, location: str) -> str:
    """RFC 9207 section 2: every authorization response names its issuer."""
    return add_to(location, {"iss": issuer.url})


def add_to(url: str, parameters: Mapping[str, str]) -> str:
    """Add parameters to the query of a redirect URI, which stays as it was registered (RFC 6749 section 3.1.2)."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"
