"""Where requests to URLs that strangers name may go: public addresses over TLS, and networks the operator names.

A name is resolved when a connection is made, what it resolved to is checked, and the connection goes to that very
address: a name that means something else a moment later (DNS rebinding) changes nothing. TLS still checks the name.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import httpcore

URL_LIMIT = 2_000
ADDRESS_LIMIT = 4  # of a host that are tried
RESOLVERS = 16  # threads: a name server that never answers must not hold up the others
HTTPS_PORT = 443
WEB_PORTS = frozenset((80, HTTPS_PORT))
FIRST_USER_PORT = 1024
GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291: the rest embeds IPv4 addresses, or is no host on the Internet
SIX_TO_FOUR = IPv6Network("2002::/16")

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network
type Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class DestinationRefused(Exception):
    """A request must not go there; the text says what must be different, and nothing about our network."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """Decides about URLs and addresses; `networks` are allowed although they are not public, and without TLS."""

    networks: tuple[Network, ...] = ()

    def check(self, url: str) -> None:
        """Raise `DestinationRefused` for a URL that is never asked, whatever its name resolves to."""
        if len(url) > URL_LIMIT or not all("!" <= letter <= "~" for letter in url):
            raise DestinationRefused(f"url must be at most {URL_LIMIT} printable ASCII characters; encode the others")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise DestinationRefused("url must look like https://host/path") from error
        if parts.scheme not in ({"https", "http"} if self.networks else {"https"}):
            raise DestinationRefused("url must begin with https://")
        if not parts.hostname or parts.fragment or "\\" in url:
            raise DestinationRefused("url must look like https://host/path")
        if "@" in parts.netloc:
            raise DestinationRefused("url must not have credentials; the signature says who sends")
        if port is not None and port not in WEB_PORTS and port < FIRST_USER_PORT:
            raise DestinationRefused(f"port must be 80, 443 or at least {FIRST_USER_PORT}, got {port}")
        try:
            literal = ip_address(parts.hostname)
        except ValueError:
            return
        if not self.permits(literal, is_plain=parts.scheme == "http"):
            raise _not_public()

    def permits(self, address: Address, *, is_plain: bool) -> bool:
        """Whether a connection to `address` may be made."""
        if any(address in network for network in self.networks):
            return True
        return not is_plain and is_public(address)


def is_public(address: Address) -> bool:
    """Whether `address` is a host on the Internet: not of a private network, this machine, or many at once."""
    if address.is_multicast or not address.is_global:
        return False
    return address.version == 4 or (address in GLOBAL_UNICAST and address not in SIX_TO_FOUR)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Makes connections to checked addresses, and no others."""

    def __init__(self, destinations: Destinations, resolve: Resolve, *, is_plain: bool) -> None:
        self._destinations = destinations
        self._resolve = resolve
        self._is_plain = is_plain
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, check, and connect to what was checked; raises `DestinationRefused`, `ConnectError`."""
        found = dict.fromkeys(await self._resolve(host, port))
        permitted = [text for text in found if self._destinations.permits(ip_address(text), is_plain=self._is_plain)]
        if not permitted:
            raise _not_public()
        failure: Exception | None = None
        for address in permitted[:ADDRESS_LIMIT]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None  # noqa: S101 - for the type checker
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class SystemResolver:
    """Asks the machine's resolver, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="webhook-resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host; raises `ConnectError`."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the host has no address") from error
        return found

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _not_public() -> DestinationRefused:
    return DestinationRefused("the host must have a public address; networks of one's own are named by the operator")
