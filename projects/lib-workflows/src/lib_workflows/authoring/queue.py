"""What a queue is: a name that runs share, and how many of them may be under way and begin."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Any

from lib_events.clock import MICROSECOND
from lib_events.texts import fit
from lib_workflows.errors import DefinitionError, QueueInvalid, TextInvalid
from lib_workflows.values.codec import LIMIT_BYTES, decode_json, encode_json
from lib_workflows.values.durations import check_seconds
from lib_workflows.values.texts import NAME_CHARACTERS, check_name

MOST_RUNS = 1_000_000
QUEUE_NAME_CHARACTERS = 128
KEY_CHARACTERS = 200
CLOCKS_DIFFER_MICROS = 60_000_000  # between workers, at most


@dataclass(frozen=True, slots=True)
class Rate:
    """How many runs begin in a time: so many at once after a rest, and then steadily (a token bucket).

    Raises `QueueInvalid`.
    """

    runs: int
    per: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        _check_count("rate", self.runs)
        if check_seconds(self.per, "per of a rate") < 0.001:
            raise QueueInvalid("rate", f"must be per millisecond or longer, got {self.per}")

    @property
    def per_micros(self) -> int:
        """The time in microseconds."""
        return self.per // MICROSECOND

    def allowed(self, full_at: int, now: int) -> int:
        """How many may begin at `now`, where the bucket will be full at `full_at`."""
        return max(0, now + self.per_micros - self._believed(full_at, now)) * self.runs // self.per_micros

    def empty_between(self, now: int) -> tuple[int, int]:
        """When a bucket is full from which none may begin at `now`: after the first moment, and by the second one."""
        return now + self.per_micros + (-self.per_micros // self.runs), now + self.per_micros + CLOCKS_DIFFER_MICROS

    def full_after(self, begun: int, full_at: int, now: int) -> int:
        """When the bucket will be full, now that so many have begun."""
        return self._believed(full_at, now) - (-begun * self.per_micros // self.runs)

    def _believed(self, full_at: int, now: int) -> int:
        """Not before now, nor later than an empty bucket needs: then the clock was set back, and one run may begin.

        Workers' clocks may differ a little, which is no reason to begin more.
        """
        if full_at > now + self.per_micros + CLOCKS_DIFFER_MICROS:
            return now + self.per_micros + (-self.per_micros // self.runs)
        return max(full_at, now)

    def next_at(self, full_at: int) -> int:
        """When the next one may begin, where none may now."""
        return full_at - self.per_micros - (-self.per_micros // self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """At most `concurrency` runs are under way, from their beginning to their end, and begin no faster than `rate`.

    By `key`, the name of a field of their input, runs take turns; of each, at most `per_key` are under way, and they
    begin no faster than `rate_per_key`. None: no limit. Raises `QueueInvalid`.
    """

    concurrency: int | None = None
    rate: Rate | None = None
    key: str | None = None
    per_key: int | None = None
    rate_per_key: Rate | None = None

    def __post_init__(self) -> None:
        for what in ("concurrency", "per_key"):
            if (count := getattr(self, what)) is not None:
                _check_count(what, count)
        for what in ("rate", "rate_per_key"):
            if not isinstance(rate := getattr(self, what), Rate | None):
                raise QueueInvalid(what, f"must be a Rate(…), got {rate!r:.80}")
        if self.key is not None:
            _check_text("key", self.key)
            return
        for what in ("per_key", "rate_per_key"):
            if getattr(self, what) is not None:
                raise QueueInvalid(what, "must have a key, the name of a field of the input; say which")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with limits that the code declares: `@workflow(queue=Queue("mail", concurrency=5))`."""

    name: str
    limits: QueueLimits

    def __init__(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        rate: Rate | None = None,
        key: str | None = None,
        per_key: int | None = None,
        rate_per_key: Rate | None = None,
    ) -> None:
        object.__setattr__(self, "name", check_queue_name(name))
        limits = QueueLimits(concurrency=concurrency, rate=rate, key=key, per_key=per_key, rate_per_key=rate_per_key)
        object.__setattr__(self, "limits", limits)


def check_queue_name(name: str) -> str:
    """Return the name of a queue that is declared, or that a run is started in; raises `QueueInvalid`."""
    _check_text("name", name, QUEUE_NAME_CHARACTERS)
    if "/" in name or name in (".", ".."):
        raise QueueInvalid("name", f"must have no slash and not be . or .., for its page is found by it; got {name!r}")
    return name


def check_served_queues(queues: Collection[str] | None) -> frozenset[str] | None:
    """The queues that a worker serves, None for all; raises `DefinitionError`."""
    if queues is None:
        return None
    if isinstance(queues, str) or not isinstance(queues, Collection):
        raise DefinitionError(f"queues of a worker must be a set of names, got {queues!r:.100}")
    return frozenset(map(check_queue_name, queues))


def known_queue_name(name: str) -> str:
    """Return the name of a queue that is asked for: earlier releases took any text. Raises `QueueInvalid`."""
    return _check_text("name", name)


def check_queue_key(key: str | None) -> str | None:
    """Return with whom a run takes turns, where whoever starts it says so; raises `QueueInvalid`."""
    return None if key is None else _check_text("queue_key", key, KEY_CHARACTERS)


def key_of(field: str | None, payload: str | None) -> str | None:
    """The key of a run with this input where runs take turns by that field; None for an input without it."""
    return None if field is None or payload is None else key_of_value(field, decode_json(payload))


def key_of_value(field: str | None, value: Any) -> str | None:
    """The same for an input, or a payload, that is decoded."""
    found = value.get(field) if field is not None and isinstance(value, dict) else None
    if found is None:
        return None
    text = fit(found if isinstance(found, str) else encode_json(found), LIMIT_BYTES)
    if len(text) <= KEY_CHARACTERS:
        return text
    return f"{text[:KEY_CHARACTERS]}~{blake2b(text.encode(), digest_size=16).hexdigest()}"


def _check_text(what: str, text: str, limit: int = NAME_CHARACTERS) -> str:
    try:
        return check_name(text, what, limit)
    except TextInvalid as error:
        raise QueueInvalid(what, str(error).removeprefix(f"{what} ")) from error


def _check_count(what: str, count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_RUNS:
        raise QueueInvalid(what, f"must be 1 to {MOST_RUNS:,} runs, got {count!r:.80}; to stop a queue, pause it")
