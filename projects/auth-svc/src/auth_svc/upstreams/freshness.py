"""When somebody has signed in at another provider: what it is asked for, and what its `auth_time` is worth here.

A provider that has a session of its own sends people back who have proven nothing for days. So it is asked to say when
they last did (OpenID Connect Core section 5.5.1; by a `max_age`, too, which every provider must know: sections 3.1.2.1
and 15.1), and what it says is when they signed in here.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from auth_svc.clients.details import LONGEST_AGE_SECONDS
from auth_svc.proving.assurance import UNTOLD
from lib_auth.numeric_date import read_numeric_date

MICROS = 1_000_000
LEEWAY_SECONDS = 120  # of its clock; and where it does not ask people again who have proven themselves just now
SAY_WHEN: Final = {"claims": json.dumps({"id_token": {"auth_time": {"essential": True}}})}


def parameters(since: int | None, now: int, *, again: bool) -> Mapping[str, str]:
    """Return what to ask of a provider for a sign-in that is not older than `since`, or that is made `again`."""
    if again or since == now:
        return SAY_WHEN | {"prompt": "login", "max_age": str(LEEWAY_SECONDS)}
    return SAY_WHEN | {"max_age": str(LONGEST_AGE_SECONDS if since is None else (now - since) // MICROS)}


def signed_in_at(claims: Mapping[str, Any], left_at: int, now: int) -> int:
    """Return when somebody who left for a provider at `left_at` has signed in, or `UNTOLD`.

    What happened after they left happened then by our clock, too, whatever the provider's says (section 3.1.3.7).
    """
    told = read_numeric_date(claims.get("auth_time"))
    if told is None or not 0 < told <= now / MICROS + LEEWAY_SECONDS:  # of a day to come, and every session were fresh
        return UNTOLD
    at = int(told * MICROS)
    return min(max(at, left_at), now) if at >= left_at - LEEWAY_SECONDS * MICROS else at
