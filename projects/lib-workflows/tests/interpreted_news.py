"""What reaches a program from elsewhere, said without the engine: letters, decisions, and events of a log."""

import bisect
from dataclasses import dataclass

from interpreted_tasks import Patience


class Box:
    """The letters of one kind for a run, and its branches that wait for one: the first of both meet."""

    def __init__(self):
        self.letters, self.readers = [], []

    def put(self, letter):
        if self.readers:
            self.readers[0].take(letter)
        else:
            self.letters.append(letter)


class Letter(Patience):
    """The next one of a box."""

    def __init__(self, clock, seconds, box):
        super().__init__(clock, seconds)
        self.box = box

    def begin(self, task):
        super().begin(task)
        self.box.readers.append(self)
        if self.box.letters:
            self.take(self.box.letters.pop(0))

    def leave(self):
        super().leave()
        self.box.readers.remove(self)


class Question(Patience):
    """A question to a person; a decision ends it, and so does whatever ends the waiting."""

    def __init__(self, clock, seconds):
        super().__init__(clock, seconds)
        self.status = "pending"

    def decide(self, decision):
        if self.status == "pending":
            self.status = decision
            self.take(decision)

    def leave(self):
        super().leave()
        if self.status == "pending":
            self.status = "expired"


@dataclass
class Event:
    number: int  # from 1 on
    kind: str
    facts: dict

    def fits(self, kind, match):
        return kind == self.kind and match.items() <= self.facts.items()


class Log:
    """All events in their order, and who waits for one; of several that do, `pick` says who is first."""

    def __init__(self, clock, pick, trigger):
        self.clock, self.pick, self.trigger = clock, pick, trigger
        self.events, self.readers, self.is_crowded = [], [], False

    def tell(self, kind, facts):
        event = Event(len(self.events) + 1, kind, facts)
        self.events.append(event)
        self.clock.at(self.clock.now, lambda: self.hand_out(event))

    def hand_out(self, event):
        """Each run receives it once for each kind and match that it waits for."""
        self.trigger(event)
        count = 0
        while readers := [reader for reader in self.readers if reader.wants(event)]:
            rivals = [reader for reader in readers if reader.is_rival_of(readers[0])]
            self.pick(rivals).receive(event)
            count += 1
        self.is_crowded = self.is_crowded or count > 1


class Receipts:
    """What of the log a run has received, life for life."""

    def __init__(self, log):
        self.log, self.lives, self.had, self.waited, self.waited_before = log, [], {}, set(), set()

    def begin_life(self, after=None):
        """The first one looks back to the event that has started the run, if one has."""
        self.lives.append(len(self.log.events) if after is None else after)
        self.waited, self.waited_before = set(), self.waited

    def up_to(self, key):
        return max(self.lives[0], self.had.get(key, 0))

    def find(self, kind, match, key):
        """The first event that the run has not received yet, from its start on."""
        for event in self.log.events[self.up_to(key) :]:
            if event.fits(kind, match):
                if self.is_kept(event, key) or self.log.pick([True, False]):
                    return event
                self.had[key] = event.number
        return None

    def is_kept(self, event, key):
        """Whether it must be found: through the life in which it came and the next one, and for as long as each life
        waits for that kind and match. Of what came before nothing is said."""
        came = bisect.bisect_left(self.lives, event.number) - 1
        return came >= len(self.lives) - 2 or key in self.waited_before


class Reader(Patience):
    """The next event of a kind that has some facts, for one run."""

    def __init__(self, clock, seconds, receipts, kind, match):
        super().__init__(clock, seconds)
        self.receipts, self.log, self.kind, self.match = receipts, receipts.log, kind, match
        self.key = (kind, *sorted(match.items()))

    def begin(self, task):
        super().begin(task)
        self.log.readers.append(self)
        event = self.receipts.find(self.kind, self.match, self.key)
        if event is not None:
            self.receive(event)

    def wants(self, event):
        return event.fits(self.kind, self.match) and event.number > self.receipts.up_to(self.key)

    def is_rival_of(self, other):
        return (self.receipts, self.key) == (other.receipts, other.key)

    def receive(self, event):
        self.receipts.had[self.key] = event.number
        self.receipts.waited.add(self.key)
        self.take(event.facts["text"])

    def late(self):
        self.receipts.waited.add(self.key)
        super().late()

    def leave(self):
        super().leave()
        self.log.readers.remove(self)
