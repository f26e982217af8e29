"""What a program must come to, said without the engine: a clock that jumps, tasks that are cancelled, and undos.

A program is data. Every branch of it waits for a time of its own before it does anything, so that no two things happen
at once and there is one right answer: what the run gives, what it does and undoes, in which order.
"""

import heapq
import itertools
from dataclasses import dataclass, field
from functools import partial

PAUSE_SECONDS = 7.0  # between two attempts of a step


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


class Letter(Wait):
    """The next signal, or what comes when it does not."""

    def __init__(self, run, seconds):
        self.run, self.seconds = run, seconds

    def begin(self, task):
        self.task = task
        self.plan = self.run.clock.at(self.run.clock.now + self.seconds, self.late)
        if self.run.letters:
            self.take(self.run.letters.pop(0))
        else:
            self.run.readers.append(self)

    def take(self, letter):
        self.run.clock.forget(self.plan)
        self.task.go(letter)

    def late(self):
        self.run.readers.remove(self)
        self.task.go(error=Failure("late"))

    def cancel(self, over):
        self.run.clock.forget(self.plan)
        self.run.readers.remove(self)
        self.task.go(error=over)


class Child(Wait):
    def __init__(self, parent, part):
        self.parent, self.part, self.over = parent, part, None

    def begin(self, task):
        self.task = task
        name = f"{self.parent.name}>{self.part[1]}"
        self.run = Run(self.parent.world, name, self.part[2], self.on_end)
        self.run.begin()

    def cancel(self, over):
        if self.over is None:
            self.over = over
            self.run.cancel()
        elif over.depth < self.over.depth:
            self.over = over

    def on_end(self, run):
        if self.over is not None:
            self.task.go(error=self.over)
        elif run.status == "completed":
            self.task.go(run.value)
        else:
            self.task.go(error=Failure(run.value))


class Group(Wait):
    """Branches side by side: all of them, or the first."""

    def __init__(self, run, parts, limit, depth, *, is_race):
        self.run, self.parts, self.limit, self.depth, self.is_race = run, list(parts), limit, depth, is_race
        self.tasks, self.values, self.winner, self.error, self.decided = [], {}, None, None, False

    def begin(self, owner):
        self.owner = owner
        self.start_more()

    def start_more(self):
        while not self.decided and len(self.tasks) < len(self.parts) and self.open < self.limit:
            part = self.parts[len(self.tasks)]
            task = Task(self.run.play(part, self.depth + 1, holder := []), self.on_end)
            holder.append(task)
            self.tasks.append(task)
            task.go()

    @property
    def open(self):
        return sum(not task.ended for task in self.tasks)

    def on_end(self, task, value, error):
        self.values[self.tasks.index(task)] = value
        if not self.decided and (self.is_race or error is not None):
            self.decided, self.error, self.winner = True, error, self.tasks.index(task)
            self.stop(Over(self.depth))
        self.start_more()
        self.close()

    def stop(self, over):
        for task in [task for task in self.tasks if not task.ended]:
            task.cancel(over)

    def cancel(self, over):
        self.decided = True
        if not isinstance(self.error, Over) or over.depth < self.error.depth:
            self.error = over
        self.stop(over)
        self.close()

    def close(self):
        if self.open or (not self.decided and len(self.tasks) < len(self.parts)) or self.owner.waits is not self:
            return
        if self.error is not None:
            self.owner.go(error=self.error)
        elif self.is_race:
            self.owner.go([self.winner, self.values[self.winner]])
        else:
            self.owner.go([self.values[n] for n in range(len(self.parts))])


@dataclass
class Scope:
    depth: int
    overruled: Over | None = None


@dataclass
class World:
    """What all runs of a program share: the clock, and what they did."""

    clock: Clock = field(default_factory=Clock)
    did: dict = field(default_factory=dict)  # by run: in order
    runs: dict = field(default_factory=dict)
    trouble: bool = True


@dataclass
class Undo:
    name: str
    kind: str
    result: str | None = None


class Run:
    def __init__(self, world, name, lives, on_end=lambda run: None):
        self.world, self.clock, self.name, self.lives, self.on_end = world, world.clock, name, list(lives), on_end
        self.letters, self.readers, self.undos, self.cancelled, self.undoing = [], [], [], False, False
        self.status, self.value = "running", None
        world.runs[name] = self
        self.did = world.did.setdefault(name, [])

    def begin(self):
        holder = []
        self.task = Task(self.play(self.lives.pop(0), 1, holder), self.root_ended)
        holder.append(self.task)
        self.task.go()

    def send(self, letter):
        if self.status == "running":
            if self.readers:
                self.readers.pop(0).take(letter)
            else:
                self.letters.append(letter)

    def cancel(self):
        if self.status == "running" and not self.cancelled:
            self.cancelled = True
            self.task.cancel(Over(0))

    def root_ended(self, task, value, error):
        if error is None and self.lives:
            self.undos = []
            self.begin()
            return
        if error is not None:
            for undo in reversed(self.undos):
                self.did.append(("undo", undo.kind, undo.name, undo.result))
        if error is None:
            self.status, self.value = "completed", value
        elif isinstance(error, Over):
            self.status, self.value = "cancelled", "cancelled"
        else:
            self.status, self.value = "failed", error.args[0]
        self.on_end(self)

    async def play(self, program, depth, me):  # noqa: C901, PLR0911, PLR0912 - a line for each word
        """Do what a program says, so deep in whatever is around it; `me` holds the task that does."""
        match program:
            case ["step", name, how]:
                return await self.step(name, how)
            case ["enter", name]:
                self.did.append(("do", "enter", name, name))
                self.undos.append(Undo(name, "enter", name))
                return name
            case ["raise", name] | ["refuse", name]:
                raise Failure(name)
            case ["sleep", seconds]:
                await Pause(self.clock, seconds)
            case ["signal", seconds]:
                return await Letter(self, seconds)
            case ["then", *parts]:
                return [await self.play(part, depth, me) for part in parts]
            case ["all", limit, *parts]:
                return await Group(self, parts, limit or len(parts), depth, is_race=False)
            case ["first", *parts]:
                return await Group(self, parts, len(parts), depth, is_race=True)
            case ["get over", part]:
                try:
                    return await self.play(part, depth, me)
                except Failure as failure:
                    return f"got over {failure.args[0]}"
            case ["clean up", part, cleaning]:
                try:
                    return await self.play(part, depth, me)
                finally:
                    await self.play(cleaning, depth, me)
            case ["in time", seconds, part]:
                return await self.in_time(seconds, part, depth, me)
            case ["child", name, _]:
                undo = Undo(name, "child")
                self.undos.append(undo)
                waiting = Child(self, program)
                try:
                    undo.result = await waiting
                except BaseException:
                    if waiting.run.status == "completed":
                        undo.result = waiting.run.value
                    else:
                        self.undos.remove(undo)
                    raise
                return undo.result
        return None

    async def step(self, name, how):
        undo = Undo(name, "step")
        self.undos.append(undo)
        if how == "flaky":
            await Pause(self.clock, PAUSE_SECONDS)  # cancelled meanwhile, nobody knows what the first attempt has done
        if how == "declared" and self.world.trouble:
            self.undos.remove(undo)
            raise Failure(name)
        self.did.append(("do", "step", name, name))
        if how == "fails" and self.world.trouble:
            raise Failure(name)
        undo.result = name
        return name

    async def in_time(self, seconds, part, depth, me):
        scope = Scope(depth)
        task = me[0]
        task.scopes.append(scope)
        plan = self.clock.at(self.clock.now + seconds, partial(task.cancel, Over(depth, scope)))
        try:
            return await self.play(part, depth + 1, me)
        except Over as over:
            if over.scope is not scope:
                raise
            raise scope.overruled or Failure("late") from over
        finally:
            self.clock.forget(plan)
            task.scopes.remove(scope)


def interpret(lives, acts=(), *, name="run", trouble=True):
    """Do what the lives of a program say, with `acts`, each a moment and what somebody does then; returns the world."""
    world = World(trouble=trouble)
    run = Run(world, name, lives)
    world.clock.at(0.0, run.begin)
    for when, act, *rest in acts:
        world.clock.at(when, partial(run.send, *rest) if act == "signal" else run.cancel)
    world.clock.run()
    return world
