"""What a program must come to, said without the engine: a clock that jumps, tasks that are cancelled, and undos.

A program is data. Every branch of it waits for a time of its own before it does anything, so that no two things happen
at once: what the run gives, what it does and undoes, in which order. Where nothing says who comes first, of several
branches that wait for the same event, every way is right: `interpretations` are all of them.
"""

from dataclasses import dataclass
from functools import partial

from interpreted_news import Box, Letter, Log, Question, Reader, Receipts
from interpreted_tasks import Clock, Failure, Over, Pause, Task, Wait

PAUSE_SECONDS = 7.0  # between two attempts of a step


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


class Choices:
    """What is picked where nothing says what comes first."""

    def __init__(self, picks=()):
        self.picks, self.options = list(picks), []

    def __call__(self, options):
        if len(options) == 1:
            return options[0]
        if len(self.options) == len(self.picks):
            self.picks.append(0)
        self.options.append(len(options))
        return options[self.picks[len(self.options) - 1]]

    def others(self):
        """The next choices after these; None when these are the last."""
        picks = self.picks
        while picks and picks[-1] + 1 == self.options[len(picks) - 1]:
            picks = picks[:-1]
        return Choices([*picks[:-1], picks[-1] + 1]) if picks else None


class World:
    """What all runs of a program share: the clock, the log, people, and what they did."""

    def __init__(self, choices, *, trouble):
        self.clock, self.choices, self.trouble = Clock(), choices, trouble
        self.log = Log(self.clock, choices, self.trigger)
        self.did, self.runs = {}, {}  # by run; what it did in order
        self.questions = {}  # by run and name
        self.answers = {}  # by update: how it was answered, and what with

    def trigger(self, event):
        """An event that says what is to be done starts a run of each workflow that it is for."""
        for workflow, lives in event.facts.get("lives", {}).items():
            Run(self, f"{event.facts['by']}>{event.facts['text']}+{workflow}", lives).begin(event.number)

    def decide(self, name, decision):
        for question in [question for (_, asked), question in self.questions.items() if asked == name]:
            question.decide(decision)


@dataclass
class Undo:
    name: str
    kind: str
    result: str | None = None


class Run:
    def __init__(self, world, name, lives, on_end=lambda run: None):
        self.world, self.clock, self.name, self.lives, self.on_end = world, world.clock, name, list(lives), on_end
        self.signals, self.updates, self.receipts = Box(), Box(), Receipts(world.log)
        self.unanswered, self.undos, self.cancelled = [], [], False
        self.status, self.value, self.views = "running", None, {}
        world.runs[name] = self
        self.did = world.did.setdefault(name, [])

    def begin(self, after=None):
        holder = []
        self.receipts.begin_life(after)
        self.task = Task(self.play(self.lives.pop(0), 1, holder), self.root_ended)
        holder.append(self.task)
        self.task.go()

    def signal(self, letter):
        if self.status == "running":
            self.signals.put(letter)

    def update(self, letter):
        if self.status == "running":
            self.world.answers[letter] = None
            self.updates.put(letter)

    def cancel(self):
        if self.status == "running" and not self.cancelled:
            self.cancelled = True
            self.task.cancel(Over(0))

    def root_ended(self, task, value, error):
        if error is None and self.lives:
            self.undos = []
            self.reject("the run has continued as new")
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
        self.unanswered += self.updates.letters
        self.reject(f"the run has {self.status}")
        self.on_end(self)

    def reject(self, reason):
        """What it has not answered it never will."""
        while self.unanswered:
            self.world.answers[self.unanswered.pop()] = ("rejected", reason)

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
                return await Letter(self.clock, seconds, self.signals)
            case ["update", seconds, answer, pause]:
                return await self.answer(seconds, answer, pause)
            case ["ask", name, seconds]:
                question = self.world.questions[self.name, name] = Question(self.clock, seconds)
                return await question
            case ["publish", kind, facts]:
                self.world.log.tell(kind, said_by(self.name, facts))
            case ["tell", name, news]:
                self.did.append(("do", "enter", name, name))
                self.undos.append(Undo(name, "enter", name))
                for kind, facts in news:
                    self.world.log.tell(kind, said_by(self.name, facts))
                return name
            case ["event", kind, match, seconds]:
                return await Reader(self.clock, seconds, self.receipts, kind, match)
            case ["hear", what, name]:
                return heard(what, name)
            case ["show", name]:
                self.views[name] = name
            case ["start", name, lives]:
                Run(self.world, f"{self.name}>{name}", lives).begin()
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
                return await self.child(name, program)
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

    async def child(self, name, part):
        undo = Undo(name, "child")
        self.undos.append(undo)
        waiting = Child(self, part)
        try:
            undo.result = await waiting
        except BaseException:
            if waiting.run.status == "completed":
                undo.result = waiting.run.value
            else:
                self.undos.remove(undo)
            raise
        return undo.result

    async def answer(self, seconds, answer, pause):
        letter = await Letter(self.clock, seconds, self.updates)
        self.unanswered.append(letter)
        await Pause(self.clock, pause)
        if answer is not None:
            self.unanswered.remove(letter)
            self.world.answers[letter] = (answer, f"{answer} {letter}")
        return letter

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


def heard(what, name):
    """What people say who see that a run waits for it, at once and however often."""
    if what == "ask":
        return "approved" if int(name.strip("n")) % 2 else "rejected"
    return name if what == "letter" else what


def said_by(run, facts):
    """What an event that starts runs says beside: of which program they are."""
    return facts | {"by": run.partition(">")[0]} if "lives" in facts else facts


def interpret(lives, acts=(), *, name="run", trouble=True, choices=None):
    """Do what the lives of a program say, with `acts`, each a moment and what somebody does then; returns the world."""
    world = World(choices or Choices(), trouble=trouble)
    run = Run(world, name, lives)
    clock, does = world.clock, {"signal": run.signal, "update": run.update, "cancel": run.cancel}
    does |= {"publish": lambda kind, facts: world.log.tell(kind, said_by(name, facts)), "decide": world.decide}
    clock.at(0.0, run.begin)
    for when, act, *rest in acts:
        clock.at(when, partial(does[act], *rest))
    clock.run()
    return world


def interpretations(lives, acts=(), *, most, **given):
    """The worlds that the lives of a program may come to, `most` of them at most."""
    choices = Choices()
    for _ in range(most):
        yield interpret(lives, acts, choices=choices, **given)
        choices = choices.others()
        if choices is None:
            return
