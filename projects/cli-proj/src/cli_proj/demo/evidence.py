"""What the services themselves counted: requests by route and status, from their /metrics."""

import re
from dataclasses import dataclass

import httpx

LINE = re.compile(r'evs_http_requests_total\{method="([A-Z]+)",route="([^"]+)",status="(\d+)"\} ([\d.e+]+)')


@dataclass(frozen=True, slots=True)
class Counted:
    """Requests of one kind."""

    method: str
    route: str
    status: int


type Counts = dict[Counted, int]


async def read_counts(http: httpx.AsyncClient, url: str) -> Counts:
    """Return how often each kind of request was answered so far."""
    answer = await http.get(f"{url}/metrics")
    answer.raise_for_status()
    return {
        Counted(method, route, int(status)): int(float(number))
        for method, route, status, number in LINE.findall(answer.text)
    }


def grown(before: Counts, after: Counts, *, status: int, method: str = "GET", route: str | None = None) -> int:
    """How many requests (to `route`, or to any) were answered with `status` in between."""
    return sum(
        number - before.get(kind, 0)
        for kind, number in after.items()
        if (kind.method, kind.status) == (method, status) and route in (None, kind.route)
    )
