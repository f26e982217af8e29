"""What the types of PostgreSQL are, asked once for all connections of a process.

The driver asks each new connection what an array is, and PostgreSQL takes ten milliseconds to say so. Types that come
with PostgreSQL have the same numbers and parts on every server; those that somebody has made are asked for as before.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import asyncpg

FIRST_UNPINNED = 10_000  # numbers below are given by hand (PostgreSQL, access/transam.h: FirstGenbkiObjectId)
NOTHING_ASKED = SimpleNamespace(name="nothing was asked")  # a statement's name: what is being prepared stays so

_known: dict[frozenset[int], Any] = {}


class KnowingConnection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """A connection that asks for no type another one has asked for.

    The driver has no public way to say so. Were its method called otherwise, each would ask again.
    """

    __slots__ = ()

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> tuple[Any, Any]:  # noqa: ASYNC109
        numbers = frozenset(typeoids)
        if numbers in _known:
            return _known[numbers], NOTHING_ASKED
        found, statement = await super()._introspect_types(typeoids, timeout)
        if max(numbers) < FIRST_UNPINNED:
            _known[numbers] = found
        return found, statement
