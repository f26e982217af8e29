"""Counts failures per key in a sliding window, in bounded memory; asked before anything expensive happens."""

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lib_events.database import UNAVAILABLE

MAX_KEYS = 50_000


class TooManyAttempts(Exception):
    """The caller has to wait `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many attempts, wait {retry_after} s")
        self.retry_after = retry_after

    @property
    def wait(self) -> str:
        """How long, in words for a person."""
        minutes = -(-self.retry_after // 60)
        hours = f"{-(-minutes // 60)} hours"
        return "a minute" if minutes == 1 else f"{minutes} minutes" if minutes <= 90 else hours


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `attempts` within `seconds`."""

    attempts: int
    seconds: float


class Attempts:
    """The recent attempts of each key; the keys longest unused are forgotten first."""

    def __init__(self, limit: Limit, *, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._max_keys = max_keys
        self._clock = clock
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, key: str) -> None:
        """Count an attempt before it is made, so that a thousand at once count too; raises `TooManyAttempts`."""
        now = self._clock()
        recent = self._recent.setdefault(key, deque())
        self._recent.move_to_end(key)
        while recent and recent[0] <= now - self._limit.seconds:
            recent.popleft()
        if len(recent) >= self._limit.attempts:
            raise TooManyAttempts(int(recent[0] + self._limit.seconds - now) + 1)
        recent.append(now)
        if len(self._recent) > self._max_keys:
            self._recent.popitem(last=False)

    def may(self, key: str) -> bool:
        """Count an attempt if there are not too many; returns whether it was counted."""
        try:
            self.begin(key)
        except TooManyAttempts:
            return False
        return True

    def forgive(self, key: str) -> None:
        """Take the latest attempt back: it was a good one."""
        recent = self._recent.get(key)
        if recent:
            recent.pop()

    @contextmanager
    def unless_away(self, key: str) -> Iterator[None]:
        """What the database could not tell or keep was no attempt: whoever is told to try again may."""
        try:
            yield
        except UNAVAILABLE:
            self.forgive(key)
            raise

    def forget(self, key: str) -> None:
        """Start over for `key`."""
        self._recent.pop(key, None)


class SignInLimits:
    """Slows guessing down without letting a stranger lock somebody else out.

    A wrong password counts against this account *from this address*, and against the address; never against
    the account alone, or anybody could keep its owner out.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pair = Attempts(Limit(8, 300), clock=clock)
        self._address = Attempts(Limit(60, 300), clock=clock)

    def begin(self, username: str, address: str) -> None:
        """Count an attempt; raises `TooManyAttempts`."""
        network = network_of(address)
        # First: who is stopped must not fill the memory with names, and empty it of others.
        self._address.begin(network)
        try:
            self._pair.begin(f"{network} {username}")
        except TooManyAttempts:
            self._address.forgive(network)
            raise

    @contextmanager
    def unless_away(self, username: str, address: str) -> Iterator[None]:
        """See `Attempts.unless_away`."""
        network = network_of(address)
        with self._address.unless_away(network), self._pair.unless_away(f"{network} {username}"):
            yield

    def succeeded(self, username: str, address: str) -> None:
        """The password was right: nothing of this counts."""
        network = network_of(address)
        self._pair.forget(f"{network} {username}")
        self._address.forgive(network)


def _at_most(attempts: int, seconds: float) -> Callable[[], Attempts]:
    return lambda: Attempts(Limit(attempts, seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often the same network, or the same person, may do what anybody can try."""

    sign_ins: SignInLimits = field(default_factory=SignInLimits)
    second_factors: SignInLimits = field(default_factory=SignInLimits)
    # Wrong passwords in one that its person has signed in with: then it is one as any other.
    known_browsers: Attempts = field(default_factory=_at_most(20, 24 * 3600))
    passkeys: Attempts = field(default_factory=_at_most(60, 300))
    upstreams: Attempts = field(default_factory=_at_most(60, 300))
    user_codes: Attempts = field(default_factory=_at_most(20, 300))
    devices: Attempts = field(default_factory=_at_most(60, 60))
    pushes: Attempts = field(default_factory=_at_most(60, 60))
    clients: Attempts = field(default_factory=_at_most(20, 3600))  # that register themselves
    registrations: Attempts = field(default_factory=_at_most(30, 3600))
    recoveries: Attempts = field(default_factory=_at_most(10, 3600))


def network_of(address: str) -> str:
    """What one subscriber has: an IPv4 address, or the 64 bits of an IPv6 network with addresses without number."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4 or parsed.ipv4_mapped:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
