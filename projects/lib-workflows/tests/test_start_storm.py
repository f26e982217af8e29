"""Starts of the same ids from several workers at once, with every policy: of each id there is one run, begun once."""

from collections import Counter

from flows import doubling
from sqlalchemy import select
from storm import SIZE, ends_of, fleet, losing_workers, nothing_is_left, side_by_side

from lib_workflows import Principal
from lib_workflows.errors import RunConflict
from lib_workflows.runs.lifecycle_events import RUN_COMPLETED
from lib_workflows.tables import runs

IDS = 10 * SIZE
STARTERS = 6
POLICIES = ("same", "existing", "fail")
ANNA = Principal("u1", "anna")


class Starter:
    """Starts every id once, in an order of its own, with an input and a policy that chance chooses."""

    def __init__(self, made, by):
        self.made, self.by = made, by
        self.told = []  # what was asked for, and the run or the conflict that came of it

    async def start_all(self):
        ids = list(range(IDS))
        self.made.chance.shuffle(ids)
        for number in ids:
            await self.made.pause(10)
            given, policy = self.made.chance.randint(1, 2), self.made.chance.choice(POLICIES)
            async with self.made.engine() as engine:
                named = {"id": f"run-{number}"} if self.by == "id" else {"idempotency_key": f"key-{number}"}
                try:
                    handle = await engine.start(doubling, given, on_conflict=policy, principal=ANNA, **named)
                except RunConflict:
                    self.told.append((number, given, policy, None))
                else:
                    self.told.append((number, given, policy, handle.id))


async def test_of_each_id_and_each_key_there_is_one_run(database_url):
    async with fleet(database_url, [doubling], "starts") as made:
        starters = [Starter(made, ("id", "key")[number % 2]) for number in range(STARTERS)]
        async with losing_workers(made, 3 * SIZE):
            await side_by_side(*(each.start_all() for each in starters))
        found = await made.read(lambda c: c.execute(select(runs.c.id, runs.c.idempotency_key)).all())
        ended = await made.until_ended([row.id for row in found])
        inputs = dict(await made.read(lambda c: [tuple(row) for row in c.execute(select(runs.c.id, runs.c.input))]))
        assert len(found) == 2 * IDS
        by_key = {row.idempotency_key: row.id for row in found if row.idempotency_key}
        for starter in starters:
            for number, given, policy, told in starter.told:
                run_id = f"run-{number}" if starter.by == "id" else by_key[f"key-{number}"]
                assert told in {None, run_id}
                if policy == "existing":
                    assert told == run_id
                elif policy == "same":
                    assert (told == run_id) == (inputs[run_id] == str(given))
        for by in ("id", "key"):
            first = Counter(
                number
                for starter in starters
                for number, _, policy, told in starter.told
                if starter.by == by and policy == "fail" and told is not None
            )
            assert set(first.values()) <= {1}
        assert {run.output for run in ended.values()} <= {"2", "4"}
        assert all(run.output == str(2 * int(inputs[run.id])) for run in ended.values())
        assert await ends_of(made, [RUN_COMPLETED.name]) == dict.fromkeys(ended, 1)
        await nothing_is_left(made)
