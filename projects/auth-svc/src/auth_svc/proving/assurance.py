"""How somebody proved who they are: methods (`amr`, RFC 8176) and the level they add up to (`acr`)."""

from collections.abc import Iterable, Sequence
from typing import Any

PASSWORD = "pwd"  # noqa: S105 - the name of a method
ONE_TIME = "otp"  # an authenticator app or a recovery code
KEY = "pop"  # a passkey; whether it lives in hardware nobody can tell without attestation
PRESENT = "user"
SEVERAL = "mfa"
ELSEWHERE = "fed"  # another provider says so; RFC 8176 has no word for it

VERIFIED_PASSKEY = (KEY, PRESENT, SEVERAL)  # a key, and what unlocks it

ONE_FACTOR = "urn:evs:acr:1"
TWO_FACTORS = "urn:evs:acr:2"
# OpenID Connect Extended Authentication Profile ACR Values 1.0. Never `phrh`: we ask for no attestation.
PHISHING_RESISTANT = "phr"
LEVELS = (ONE_FACTOR, TWO_FACTORS, PHISHING_RESISTANT)  # each includes the ones before it

UNTOLD = 0  # when somebody signed in elsewhere, of whom nobody says it: longer ago than anybody may ask
MICROS = 1_000_000


def acr_of(methods: Iterable[str]) -> str:
    """The level that methods add up to."""
    proven = frozenset(methods)
    if KEY in proven:
        return PHISHING_RESISTANT
    return TWO_FACTORS if SEVERAL in proven else ONE_FACTOR


def claims_of(authenticated_at: int, methods: Sequence[str]) -> dict[str, Any]:
    """The claims about a sign-in; none about methods for an authorization from before they were kept."""
    when = {"auth_time": authenticated_at // MICROS} if authenticated_at != UNTOLD else {}
    return when | ({"acr": acr_of(methods), "amr": list(methods)} if methods else {})


def with_factor(before: Iterable[str], added: Iterable[str]) -> tuple[str, ...]:
    """The methods once another factor was proven beside them."""
    return tuple(dict.fromkeys((*before, *added, SEVERAL)))


def reaches(methods: Iterable[str], level: str | None) -> bool:
    """Whether methods are good enough for `level`; for none, everything is."""
    return level is None or LEVELS.index(acr_of(methods)) >= LEVELS.index(level)


def highest(*levels: str | None) -> str | None:
    """The one that includes the others; None when there is none."""
    given = [LEVELS.index(level) for level in levels if level is not None]
    return LEVELS[max(given)] if given else None


def lowest(requested: Iterable[str]) -> str | None:
    """The lowest of the levels that are asked for, since any of them will do; None when we know none of them."""
    known = [LEVELS.index(level) for level in requested if level in LEVELS]
    return LEVELS[min(known)] if known else None
