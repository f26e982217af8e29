"""Ports for servers that tests start: free ones, of which no two test processes are given the same."""

import itertools
import os
import socket
from collections.abc import Iterator

FIRST_PORT, PORTS, PORT_RANGES = 12_000, 1_000, 20


def free_ports(count: int) -> list[int]:
    """Return TCP ports on loopback that nobody uses now, each of them once.

    Every test process has a range of its own, below the ports that the kernel lends to clients: what is free stays so.
    """
    return list(itertools.islice(filter(_is_free, _CANDIDATES), count))


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PORT_RANGES
    ports = range(FIRST_PORT + worker * PORTS, FIRST_PORT + (worker + 1) * PORTS)
    begin = os.getpid() % PORTS  # another test run on this machine has the same ranges
    return itertools.cycle((*ports[begin:], *ports[:begin]))


_CANDIDATES = _candidates()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
