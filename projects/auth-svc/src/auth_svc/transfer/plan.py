"""In which order a document is brought in: few items at a time, each after those it names.

A transaction that took long would stop everybody else, so none takes more than a few items. What a rehearsal has undone
is not there for the items that name it: each batch says what it needs, and a rehearsal decides that again first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from auth_svc.transfer.document import Document, RoleItem

type Step = Literal["resource", "role", "group", "client", "actors", "upstream", "user"]
type Key = tuple[Step, str]

BATCH = 10  # items in one transaction: others wait for it


@dataclass(frozen=True, slots=True)
class Piece:
    """One item, and what else of the document it names."""

    step: Step
    name: str
    item: Any
    names: frozenset[Key] = frozenset()

    @property
    def key(self) -> Key:
        """What others name it by."""
        return self.step, self.name


@dataclass(frozen=True, slots=True)
class Batch:
    """The pieces of one transaction, and those before them that they need."""

    pieces: Sequence[Piece]
    needs: Sequence[Piece] = ()


def batches(document: Document) -> Iterator[Batch]:
    """Yield the document in batches; one that is empty has an empty one."""
    pieces = list(_pieces(document))
    known = {piece.key: piece for piece in pieces if piece.step != "user"}
    places = {key: place for place, key in enumerate(known)}
    for first in range(0, len(pieces) or 1, BATCH):
        chosen = pieces[first : first + BATCH]
        own = {piece.key for piece in chosen}
        needed = sorted(_needed(chosen, known) - own, key=places.__getitem__)
        yield Batch(chosen, [known[key] for key in needed])


def _pieces(document: Document) -> Iterator[Piece]:
    resources = frozenset[Key](("resource", resource.id) for resource in document.resources)
    for resource in document.resources:
        yield Piece("resource", resource.id, resource)
    for role in _inner_first(document.roles):
        yield Piece("role", role.name, role, resources | _named("role", role.includes))
    for group in document.groups:
        yield Piece("group", group.name, group, _named("role", group.roles))
    for client in document.clients:
        yield Piece("client", client.id, client, resources | _named("role", client.roles))
    for resource in document.resources:  # its actors may be clients that have just come
        yield Piece(
            "actors", resource.id, resource, _named("resource", [resource.id]) | _named("client", resource.actors)
        )
    ids = {upstream.issuer.rstrip("/"): upstream.id for upstream in document.upstreams}
    for upstream in document.upstreams:
        yield Piece("upstream", upstream.id, upstream)
    for user in document.users:
        elsewhere = _named("upstream", (ids.get(link.issuer.rstrip("/"), "") for link in user.links or ()))
        yield Piece("user", user.username, user, elsewhere | _named("role", user.roles) | _named("group", user.groups))


def _named(step: Step, names: Iterable[str]) -> frozenset[Key]:
    return frozenset((step, name) for name in names)


def _needed(pieces: Iterable[Piece], known: Mapping[Key, Piece]) -> set[Key]:
    """Return what the pieces name, and what that names, as far as it is in the document."""
    needed: set[Key] = set()
    waiting = [key for piece in pieces for key in piece.names]
    while waiting:
        key = waiting.pop()
        if key in known and key not in needed:
            needed.add(key)
            waiting += known[key].names
    return needed


def _inner_first(items: Sequence[RoleItem]) -> Iterator[RoleItem]:
    """Yield roles after those they include; what cannot be put in order is refused by its own check."""
    waiting = list(items)
    while waiting:
        names = {item.name for item in waiting}
        ready = [item for item in waiting if names.isdisjoint(set(item.includes) - {item.name})] or waiting
        yield from ready
        taken = {id(item) for item in ready}
        waiting = [item for item in waiting if id(item) not in taken]
