"""Lists in text columns: JSON arrays of texts, and the space-separated scopes of OAuth."""

import json
from collections.abc import Iterable
from functools import lru_cache


def to_text(values: Iterable[str]) -> str:
    """Return the JSON array to keep."""
    return _to_text(tuple(values))


@lru_cache(4096)  # every request reads and keeps the same few lists of its client and account
def _to_text(values: tuple[str, ...]) -> str:
    return json.dumps(values)


@lru_cache(4096)
def from_text(kept: str) -> tuple[str, ...]:
    """Read what `to_text` made."""
    return tuple(json.loads(kept))


def scope_text(scopes: Iterable[str]) -> str:
    """Return scopes as OAuth writes them, in a stable order."""
    return " ".join(sorted(scopes))
