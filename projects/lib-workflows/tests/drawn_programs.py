"""Programs by chance, with what people do meanwhile, of which the interpreter can say what they come to."""

import itertools
from operator import itemgetter

from interpreter import interpret, interpretations

APART_SECONDS = 0.08  # at least, between two things that happen: the clock moves a little each time it is read
WAYS = 8  # that a program may go, at most
MOMENTS = 50  # at which something happens, at most
LONG_SECONDS = 1_000_000
KINDS = ["shop", "bank"]
CALL = "call"
HEARERS = ["hears", "overhears"]
CALLS = 2  # of one program, about
SIDES = ["left", "right"]


class Drawing:
    """A program by chance; a `plain` one does the same however long things take, once there is no trouble.

    Of one whose news are `crowded`, several branches may receive the same event: each waits a while then, like one
    that has told of something.
    """

    def __init__(self, chance, *, plain=False):
        self.chance, self.plain, self._numbers = chance, plain, itertools.count()
        self.is_crowded = chance.random() < 0.7
        self.newsiness = chance.choice([0.2, 0.7])
        self.kinds = chance.choice([KINDS, KINDS[:1]] if plain else [KINDS, KINDS[:1], [*KINDS, CALL]])
        self.questions, self.calls, self.letters = [], 0, 0

    def name(self):
        return f"n{next(self._numbers)}"

    def moment(self):
        return self.chance.randint(100, 500_000) / 1000

    def sleep(self):
        return ["sleep", self.chance.randint(100, 120_000) / 1000]

    def later(self, depth):
        """What a branch does first: it waits for a time of its own."""
        return ["then", self.sleep(), self.program(depth)]

    def leaf(self):
        if self.plain and self.chance.random() < self.newsiness / 2:
            return self.hearing()
        if not self.plain and self.chance.random() < self.newsiness:
            return self.news()
        how = self.chance.choice(["well", "well", "well", "flaky", "declared", "fails"])
        leaves = [["step", self.name(), how]] * 5 + [["enter", self.name()]] * 3 + [self.sleep()] * 2
        named = [[word, self.name()] for word in ("raise", "refuse")]
        leaves += [] if self.plain else [*named, *[["signal", self.moment()]] * 2]
        return self.chance.choice(leaves)

    def hearing(self):
        """Something that whoever sees the run waiting says, or that the run says itself."""
        match self.chance.choice(["hear", "hear", "hear", "show", "publish"]):
            case "hear":
                return ["hear", self.chance.choice(["nudge", "update", "ask"]), self.name()]
            case "show":
                return ["show", self.name()]
        return ["publish", CALL, self.facts(self.name()) | {"lives": {}}]

    def letter(self):
        self.letters += 1
        return ["hear", "letter", f"l{self.letters}"]

    def news(self):
        """Something told, asked or awaited."""
        words = ["publish", "event", "event", "event", "update", "update", "ask"]
        match self.chance.choice([*words, "call", "tell", "tell"]):
            case "publish":
                return ["then", ["publish", *self.said()], self.sleep()]
            case "call":
                return ["then", ["publish", CALL, self.call()], self.sleep()]
            case "tell":
                return ["then", ["tell", self.name(), [self.piece() for _ in range(self.some(3))]], self.sleep()]
            case "event":
                return self.event(self.kind(), self.match())
            case "update":
                answer = self.chance.choice(["completed", "completed", "rejected", None])
                return ["update", self.moment(), answer, self.moment()]
        self.questions.append(self.name())
        return ["ask", self.questions[-1], self.moment()]

    def kind(self):
        return self.chance.choice(self.kinds)

    def piece(self):
        return [CALL, self.call()] if self.chance.random() < 0.3 else self.said()

    def said(self):
        kind = self.kind()
        return [kind, self.facts(self.name()) | ({"lives": {}} if kind == CALL else {})]

    def call(self):
        """What an event says that starts runs."""
        self.calls += 1
        depth = 0 if self.calls > CALLS else 1
        heard = [name for name in HEARERS if self.calls <= 2 * CALLS and self.chance.random() < 0.7]
        return self.facts(self.name()) | {"lives": {name: [self.later(depth)] for name in heard}}

    def facts(self, text):
        return {"order": self.chance.choice("ab"), "side": self.chance.choice(SIDES), "text": text}

    def match(self):
        facts = self.facts("")
        return {name: facts[name] for name in self.chance.choice([[], [], ["order"], ["side"], ["order", "side"]])}

    def event(self, kind, match):
        wait = ["event", kind, match, self.moment()]
        return ["then", wait, self.sleep()] if self.is_crowded else wait

    def rivals(self):
        """Branches that wait for the same events, each for some of them."""
        same = self.kind(), self.match()
        branches = range(self.chance.randint(2, 3))
        return ["all", None, *(["then", self.sleep(), *self.several(*same)] for _ in branches)]

    def several(self, kind, match):
        return [["get over", self.event(kind, match)] for _ in range(self.chance.randint(1, 2))]

    def program(self, depth):  # noqa: PLR0911 - a line for each word
        if depth == 0 or self.chance.random() < 0.12:
            return self.leaf()
        inner, many = depth - 1, range(self.chance.randint(2, 4))
        words = ["then", "all", "child", "clean up"] * 2
        words += [] if self.plain else ["first", "in time", "get over"] * 2 + ["lives", "rivals", "start"]
        word = self.chance.choice(words)
        match word:
            case "then":
                return ["then", *(self.program(inner) for _ in many)]
            case "all":
                return ["all", self.chance.choice([None, None, 1, 2]), *(self.later(inner) for _ in many)]
            case "first":
                return ["first", *(self.later(inner) for _ in many)]
            case "child" | "start":
                return [word, self.name(), [self.later(inner)]]
            case "lives":
                return ["child", self.name(), [self.later(inner) for _ in range(self.chance.randint(2, 4))]]
            case "rivals":
                return self.rivals()
            case "clean up":
                return ["clean up", self.program(inner), self.later(0)]
        return ["in time", self.moment(), self.program(inner)] if word == "in time" else [word, self.program(inner)]

    def readings(self):
        """What a plain one does at first hand: beside everything else it receives events that are there already."""
        self.letters = 0
        waits = [["event", self.kind(), self.match(), LONG_SECONDS] for _ in range(self.some(3))]
        waits += [self.letter() for _ in range(self.some(3))]
        parts = [[self.program(2), wait] for wait in waits]
        return ["then", self.sleep(), *itertools.chain(*parts), self.program(2)]

    def tellings(self):
        """What the readings receive."""
        moments = sorted(self.chance.sample(range(1, 100), 12))
        return [[moment / 10, "publish", *self.said()] for moment in moments]

    def acts(self):
        """What people do meanwhile: moments, each with what somebody does."""
        acts = [["signal", f"s{n}"] for n in range(self.some(3))]
        acts += [["update", f"u{n}"] for n in range(self.some(4))]
        acts += [["publish", *self.told_by_people(f"e{n}")] for n in range(self.some(10))]
        asked = [name for name in self.questions if self.chance.random() < 0.7]
        acts += [["decide", name, self.chance.choice(["approved", "rejected"])] for name in asked]
        acts += [["cancel"]] if self.chance.random() < 0.35 else []
        return sorted(([self.moment(), *act] for act in acts), key=itemgetter(0))

    def told_by_people(self, text):
        if self.chance.random() < 0.15:
            return [CALL, self.call() | {"text": text}]
        kind, facts = self.said()
        return [kind, facts | {"text": text}]

    def some(self, most):
        return self.chance.randint(0, most)


def draw(chance):
    """The lives of a program, and what people do meanwhile; some news reach many of them."""
    least = chance.choice([0, 1, 3, 5])
    while True:
        drawing = Drawing(chance)
        lives = [drawing.later(chance.randint(1, 4))]
        if chance.random() < 0.2:
            lives += [drawing.later(2) for _ in range(chance.randint(1, 3))]
        acts = drawing.acts()
        if is_clear(drawing, lives, acts, least):
            return lives, acts


def draw_one_that_fails(chance):
    """A plain program that fails while there is trouble."""
    while True:
        drawing = Drawing(chance, plain=True)
        lives, acts = [drawing.readings() for _ in range(chance.randint(1, 3))], drawing.tellings()
        failed, *ways = interpret(lives, acts), *interpretations(lives, acts, most=2, trouble=False)
        ends = [way.runs["run"].status for way in (failed, *ways)]
        if ends == ["failed", "completed"] and happens_apart(failed, acts):
            return lives, acts


def is_clear(drawing, lives, acts, least):
    """Whether enough happens, no two things at once, and not in too many ways."""
    first = interpret(lives, acts)
    if news_in(first) < least or not happens_apart(first, acts):
        return False
    ways = list(interpretations(lives, acts, most=WAYS + 1))
    crowded = any(way.log.is_crowded for way in ways)
    return len(ways) <= WAYS and drawing.is_crowded >= crowded and all(happens_apart(way, acts) for way in ways)


def news_in(world):
    """How much of what was told, asked and answered has reached somebody."""
    received = sum(len(run.receipts.had) for run in world.runs.values())
    decided = sum(question.status in ("approved", "rejected") for question in world.questions.values())
    return received + decided + sum(answer[0] == "completed" for answer in world.answers.values())


def happens_apart(way, acts):
    moments = sorted({*way.clock.moments, *(act[0] for act in acts)})
    return 2 < len(moments) <= MOMENTS and all(two - one > APART_SECONDS for one, two in itertools.pairwise(moments))
