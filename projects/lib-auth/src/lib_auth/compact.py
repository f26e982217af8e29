"""A compact JWS taken apart, and its header, before anything of it is believed."""

from collections.abc import Mapping
from typing import Any

from joserfc import jws
from joserfc.util import urlsafe_b64decode


def read_header(text: str, *, registry: jws.JWSRegistry | None = None) -> Mapping[str, Any]:
    """Return what a token says of itself; raises `JoseError` or `ValueError` where it is none."""
    return take_apart(text, registry=registry).headers()


def take_apart(text: str, *, registry: jws.JWSRegistry | None = None) -> jws.CompactSignature:
    """Return a token's parts, of which nothing was checked; raises `JoseError` or `ValueError` where it is none.

    JSON of a token is UTF-8 (RFC 8725 section 3.7). The library's reader would guess at UTF-16 and UTF-32, which have
    a zero byte beside every brace; JSON in UTF-8 has none.
    """
    found = jws.extract_compact(text.encode(), registry=registry)
    if b"\0" in urlsafe_b64decode(found.segments["header"]):
        raise ValueError("the header of a token must be UTF-8")
    return found
