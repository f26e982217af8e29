"""The shared cache: a server of Turborepo's HTTP API that several machines keep results on. Read-only unless told
otherwise, and never without signatures: whoever can write there unsigned could pass what is broken."""

import http.client
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from lib_pipeline.errors import SharedCacheUnclear

URL = "PIPELINE_CACHE_URL"
TOKEN = "PIPELINE_CACHE_TOKEN"  # noqa: S105 - the name of a variable
KEY = "PIPELINE_CACHE_SIGNATURE_KEY"
TEAM = "PIPELINE_CACHE_TEAM"
MODE = "PIPELINE_CACHE_MODE"
MODES = ("read", "write", "off")
KEY_BYTES = 32  # HMAC-SHA256 takes shorter ones, at less than its strength
NO_RESULT = "0000000000000000"
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class SharedCache:
    """Where the server is, what it wants to see, and whether results may be written there."""

    url: str
    token: str
    signature_key: str
    team: str
    writes: bool

    def environment(self) -> dict[str, str]:
        """The variables by which Turborepo knows it. Tasks never see them."""
        return {
            "TURBO_API": self.url,
            "TURBO_TOKEN": self.token,
            "TURBO_TEAM": self.team,
            "TURBO_REMOTE_CACHE_SIGNATURE_KEY": self.signature_key,
        }


def shared_cache(environment: Mapping[str, str]) -> SharedCache | None:
    """The shared cache the environment names, or None; raises `SharedCacheUnclear`."""
    url, mode = environment.get(URL, ""), environment.get(MODE, "read")
    if mode not in MODES:
        raise SharedCacheUnclear(f"{MODE} must be one of {', '.join(MODES)}, got {mode!r}; correct it")
    if not url or mode == "off":
        return None
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SharedCacheUnclear(f"{URL} must be an http or https URL, got {url!r}; correct it")
    key = environment.get(KEY, "")
    if len(key.encode()) < KEY_BYTES:
        raise SharedCacheUnclear(
            f"{KEY} must have at least {KEY_BYTES} bytes, got {len(key.encode())}: "
            "an unsigned result is nobody's word; "
            f"set it, or leave {URL} out"
        )
    return SharedCache(
        url=url.rstrip("/"),
        token=environment.get(TOKEN, ""),
        signature_key=key,
        team=environment.get(TEAM, "team_pipeline"),
        writes=mode == "write",
    )


def trouble_with(cache: SharedCache, *, patience_seconds: float = PATIENCE_SECONDS) -> str:
    """Why the server is of no use now, or nothing. Asked once, so that a dead server costs seconds and not minutes."""
    parts = urlsplit(cache.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Authorization": f"Bearer {cache.token}"}
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=patience_seconds)) as connection:
            # Whether it holds some result: unlike its status, that is told only to who may read.
            connection.request(
                "HEAD", f"{parts.path}/v8/artifacts/{NO_RESULT}?slug={quote(cache.team)}", headers=headers
            )
            status = connection.getresponse().status
    except TimeoutError:
        return f"it did not answer within {patience_seconds:.0f} s"
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return f"it refuses the token (HTTP {status})"
    return f"it answers HTTP {status}" if status >= 500 else ""
