"""Time that jumps, and lines of control that wait in it and are cancelled."""

import heapq
import itertools


class Over(BaseException):
    """A cancellation; `depth` says how far outside it comes from: 0 is the run."""

    def __init__(self, depth, scope=None):
        super().__init__(depth)
        self.depth, self.scope = depth, scope


class Failure(Exception):
    """An error of the program's own; its one argument says which."""


class Clock:
    """Time in which nothing happens but what was planned."""

    def __init__(self):
        self.now, self._plans, self._numbers = 0.0, [], itertools.count()
        self.moments = []

    def at(self, when, act):
        plan = [when, next(self._numbers), act]
        heapq.heappush(self._plans, plan)
        return plan

    def forget(self, plan):
        plan[2] = None

    def run(self):
        while self._plans:
            when, _, act = heapq.heappop(self._plans)
            if act is not None:
                self.now = when
                self.moments.append(when)
                act()


class Task:
    """One line of control: a coroutine that yields what it waits for."""

    def __init__(self, coroutine, on_end):
        self.coroutine, self.on_end = coroutine, on_end
        self.waits, self.scopes, self.ended = None, [], False

    def go(self, value=None, error=None):
        self.waits = None
        try:
            asked = self.coroutine.send(value) if error is None else self.coroutine.throw(error)
        except StopIteration as stop:
            self.end(stop.value, None)
        except BaseException as failure:  # noqa: BLE001 - however it ends
            self.end(None, failure)
        else:
            self.waits = asked
            asked.begin(self)

    def end(self, value, error):
        self.ended = True
        self.on_end(self, value, error)

    def cancel(self, over):
        for scope in self.scopes:
            if scope.depth > over.depth and (scope.overruled is None or over.depth < scope.overruled.depth):
                scope.overruled = over
        self.waits.cancel(over)


class Wait:
    """Something to wait for."""

    def __await__(self):
        return (yield self)


class Pause(Wait):
    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def begin(self, task):
        self.task, self.plan = task, self.clock.at(self.clock.now + self.seconds, task.go)

    def cancel(self, over):
        self.clock.forget(self.plan)
        self.task.go(error=over)


class Patience(Wait):
    """A wait for something that may come, or not in time."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def begin(self, task):
        self.task = task
        self.plan = self.clock.at(self.clock.now + self.seconds, self.late)

    def leave(self):
        """Wait no more, however that ends."""
        self.clock.forget(self.plan)

    def take(self, value):
        self.leave()
        self.task.go(value)

    def late(self):
        self.leave()
        self.task.go(error=Failure("late"))

    def cancel(self, over):
        self.leave()
        self.task.go(error=over)
