"""The signals and updates of a run that nobody has taken yet."""

import bisect
from collections import defaultdict, deque
from operator import attrgetter

from lib_workflows.runs.record import Message

by_number = attrgetter("number")


class Mailbox:
    """Keeps messages, those of each kind and name in the order in which they were sent; there may be very many."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: defaultdict[tuple[str, str], deque[Message]] = defaultdict(deque)

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def keep(self, message: Message) -> None:
        """Keep a message; one that was taken and is given back goes before those sent later."""
        kept = self._kept[message.kind, message.name]
        if kept and message.number < kept[-1].number:
            bisect.insort(kept, message, key=by_number)
        else:
            kept.append(message)

    def take(self, kind: str, name: str) -> Message | None:
        """The oldest message of that kind and name, which is not kept any more; None when there is none."""
        kept = self._kept.get((kind, name))
        return kept.popleft() if kept else None
