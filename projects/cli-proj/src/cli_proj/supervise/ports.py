"""Sees to it that every port is free before anything starts; never moves to another one in silence."""

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from cli_proj.failure import CommandFailed, conflict, usage

ANY_PORT = 0


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A port somebody needs, and the option that chooses it."""

    option: str
    host: str
    port: int


def check_ports(wanted: Iterable[WantedPort]) -> None:
    """Raise `CommandFailed` for the first port that cannot be had, naming its option."""
    seen: dict[int, str] = {}
    for want in wanted:
        if want.port in seen:
            raise usage(f"{seen[want.port]} and {want.option} must differ, got {want.port} for both")
        seen[want.port] = want.option
        failure = _try(want)
        if failure is not None:
            raise failure


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, ANY_PORT))
        port: int = probe.getsockname()[1]
        return port


def is_free(host: str, port: int) -> bool:
    """Whether a service could listen there."""
    return _try(WantedPort("", host, port)) is None


def _try(want: WantedPort) -> CommandFailed | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the services: TIME_WAIT does not count
        try:
            probe.bind((want.host, want.port))
        except OSError as error:
            return _failure(want, error)
    return None


def _failure(want: WantedPort, error: OSError) -> CommandFailed:
    another = f"evs up {want.option} {want.port + 10 if want.port < 65_500 else 8010}"
    if error.errno == errno.EADDRINUSE:
        return conflict(
            f"port {want.port} is taken by another program; {want.option} needs it",
            hint=f"{another}, or stop the other program (ss -ltnp 'sport = :{want.port}' names it)",
        )
    if error.errno == errno.EACCES:
        return usage(f"port {want.port} of {want.option} needs more rights: below 1024 is for root", hint=another)
    return usage(f"{want.option} cannot listen on {want.host}:{want.port}: {error.strerror}", hint=another)
