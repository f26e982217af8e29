"""Where to sign in for a service: its 401 names metadata (RFC 9728), the metadata names the issuer."""

import re
from typing import Any

import httpx

from lib_auth.oauth_error import ServerUnavailable

# RFC 9110 section 11.2: a parameter is a token, or a quoted string with backslash escapes.
PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def read_challenge(header: str) -> dict[str, str]:
    """Return the parameters of a `WWW-Authenticate: Bearer …` header; empty for any other scheme."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "bearer":
        return {}
    return {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in PARAMETER.findall(rest)}


async def fetch_resource_metadata(http: httpx.AsyncClient, url: str, *, resource: str) -> dict[str, Any]:
    """Return the metadata at `url`, which must be about `resource` (RFC 9728 section 3.3)."""
    try:
        answer = await http.get(url)
        answer.raise_for_status()
        document = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ServerUnavailable(f"{url} must answer with the metadata of {resource}: {error}") from error
    if not isinstance(document, dict) or document.get("resource") != resource:
        raise ServerUnavailable(f"{url} must be about {resource}, not about another resource")
    return document
