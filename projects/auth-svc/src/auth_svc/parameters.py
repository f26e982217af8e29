"""Reading OAuth parameters off the wire, strictly: form-encoded UTF-8, and nothing said twice."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, unquote_plus

from joserfc import jws
from joserfc.errors import JoseError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from lib_events.http.limits import first_header, headers_of

FORM = "application/x-www-form-urlencoded"
MAX_PARAMETERS = 60
MAX_ASSERTION = 4_096
# RFC 6749 appendix A: protocol parameters are printable ASCII; nothing of ours needs more.
PRINTABLE = re.compile(r"[\x20-\x7e]*")
SECONDS = re.compile(r"[0-9]{1,9}")  # int() refuses thousands of digits, and reads those of every script


class ParametersRejected(Exception):
    """A request cannot be read; `description` is for the client's developer."""

    def __init__(self, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.description = description
        self.status = status


async def read_form(request: Request, *, repeatable: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Return the parameters of a form post to a protocol endpoint; raises `ParametersRejected`."""
    if first_header(request.scope, b"content-type").partition(";")[0].strip().lower() != FORM:
        raise ParametersRejected(f"The body must be {FORM}.", status=415)
    pairs = parse(await _body_of(request))
    check_once(pairs, repeatable=repeatable)
    for name, value in pairs:
        if not PRINTABLE.fullmatch(name + value):
            raise ParametersRejected("Parameters must be printable ASCII.")
    return pairs


async def _body_of(request: Request) -> bytes:
    """Return the body, which nearly always comes in one piece."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    return body if not message.get("more_body") else body + b"".join([piece async for piece in request.stream()])


def parse(encoded: bytes | str) -> list[tuple[str, str]]:
    """Decode form-encoded parameters; raises `ParametersRejected`."""
    try:
        text = encoded.decode("ascii") if isinstance(encoded, bytes) else encoded
        pairs = parse_qsl(
            text, keep_blank_values=False, errors="strict", encoding="utf-8", max_num_fields=MAX_PARAMETERS
        )  # RFC 6749 section 3.1: a parameter without a value counts as left out
    except ValueError as error:
        raise ParametersRejected("The parameters must be form-encoded UTF-8.") from error
    if any("\0" in name + value for name, value in pairs):
        raise ParametersRejected("Parameters must not contain NUL.")  # PostgreSQL keeps no such texts
    return pairs


def check_once(pairs: Sequence[tuple[str, str]], *, repeatable: frozenset[str] = frozenset()) -> None:
    """RFC 6749 section 3.2: parameters must not be included more than once."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen and name not in repeatable:
            raise ParametersRejected("No parameter may be sent twice.")
        seen.add(name)


def authorization_of(request: Request) -> str:
    """Return the Authorization header, or nothing; raises `ParametersRejected`."""
    found = headers_of(request.scope, b"authorization")
    if len(found) > 1:
        raise ParametersRejected("There must be one Authorization header.")  # or a proxy may have read the other one
    return found[0] if found else ""


def named_client(authorization: str, form: Mapping[str, str]) -> str | None:
    """Return which client a request says it comes from, before anything is proven."""
    basic = _basic_client(authorization)
    if basic is not None and form.get("client_id", basic) != basic:
        raise ParametersRejected("The client in the Authorization header and 'client_id' must be the same.")
    if basic is not None and "client_secret" in form:
        # RFC 6749 section 2.3: one method of authentication in each request.
        raise ParametersRejected("The client must authenticate in one way only.")
    if "client_assertion" not in form:
        return basic or form.get("client_id")
    if basic is not None or "client_secret" in form:
        raise ParametersRejected("The client must authenticate in one way only.")
    asserted = _asserted_client(form["client_assertion"])
    if form.get("client_id", asserted) != asserted:
        raise ParametersRejected("The client in 'client_assertion' and 'client_id' must be the same.")
    return asserted


def _basic_client(header: str) -> str | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id = unquote_plus(base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[0])
    except (binascii.Error, ValueError) as error:
        raise ParametersRejected("The Authorization header must be HTTP Basic in UTF-8.", status=401) from error
    if not PRINTABLE.fullmatch(client_id):
        raise ParametersRejected("The client's id must be printable ASCII.", status=401)  # RFC 6749 appendix A.1
    return client_id


def _asserted_client(assertion: str) -> str | None:
    """Whom an assertion says it is from, before anything is proven."""
    try:
        claims = from_json(jws.extract_compact(assertion[:MAX_ASSERTION].encode()).payload)
    except (JoseError, ValueError):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) and PRINTABLE.fullmatch(subject) else None
