"""The AuthService dies at each commit of whatever people, programs and administrators ask for, and begins again.

Whoever asked has no answer then, and asks once more. What is kept in the end must be what would be kept had nobody
died, or had the answer only been lost. `EVS_TEST_CRASHES=1000` plays all commands, otherwise some are drawn by chance
(`EVS_TEST_CRASHES_SEED=7` draws others).
"""

import asyncio
import os
import random
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

import pytest
from about_one_person import COMMANDS, Somebody
from all_that_is_done import EVERYTHING, ISSUER, prepare
from lying_provider import Liar, speak_to
from rows_and_events import disagreements
from sqlalchemy import func, select, text

from auth_svc import audit_chain, pruner
from auth_svc.rate_limits import Attempts
from auth_svc.tables import metadata
from lib_events.adapters.postgresql import PostgresqlDatabase
from lib_events.adapters.sqlite import SqliteDatabase
from lib_events.testing import wait_until

ALL = COMMANDS | EVERYTHING
ALWAYS = ("sign up", "come from elsewhere", "redeem")  # the first two have more commits than one
NUMBER = int(os.environ.get("EVS_TEST_CRASHES", "4"))
SEED = int(os.environ.get("EVS_TEST_CRASHES_SEED", "1"))
# What loops have yet to do: who waits until they have can count.
WAITING = ("mails", "recoveries", "roles_to_tell", "audit WHERE position IS NULL")


@dataclass
class Death:
    """Comes at a commit of one request, which reaches the disk and is never heard of."""

    at: int | None = None
    commits: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)


death = ContextVar("death", default=None)


@pytest.fixture
async def played(run_provider, tmp_path, database_url, monkeypatch):
    """An installation whose requests may die at their commits, where nobody is asked to wait."""
    monkeypatch.setattr(Attempts, "begin", lambda _limits, _key: None)
    monkeypatch.setattr(pruner, "prune", lambda *_: False)  # on a slow machine it would be seen at work
    for adapter in (SqliteDatabase, PostgresqlDatabase):
        monkeypatch.setattr(adapter, "transact", dying(adapter.transact))
    settings = {"auth_url": ISSUER, "registration": "open", "client_registration": "open", "gui_access_seconds": 3600}
    async with run_provider(tmp_path, database_url, **settings) as provider:
        installation = Installation(provider)
        await installation.begin()
        yield installation


def dying(transact):
    async def transact_or_die(database, function, *args, **options):
        mine = death.get()
        if mine is None:
            return await transact(database, function, *args, **options)
        if mine.commits == mine.at:
            raise asyncio.CancelledError  # nobody is there any more
        done = await transact(database, function, *args, **options)
        mine.commits += 1
        if mine.commits == mine.at:
            mine.came.set()
            await asyncio.get_running_loop().create_future()
        return done

    return transact_or_die


class Installation:
    """An AuthService whose requests may die, and which then begins again."""

    def __init__(self, provider):
        self.provider = provider
        self.admin = {}

    async def begin(self):
        self.provider.liar = Liar()
        self.admin["authorization"] = f"Bearer {await self.provider.admin_token()}"
        await prepare(self.provider, self.admin)

    async def ready(self, name):
        """Returns what does it for somebody new, and what there was before."""
        speak_to(self.provider, self.provider.liar)
        act = await ALL[name](await Somebody.arrive(self.provider, self.admin))
        return act, await self.kept()

    async def dies(self, act, at):
        """Ask, and die at that commit; returns the answer if there was one, and the number of commits."""
        mine = Death(at)
        token = death.set(mine)
        asking, dying = asyncio.ensure_future(act()), asyncio.ensure_future(mine.came.wait())
        death.reset(token)
        await asyncio.wait([asking, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not mine.came.is_set():
            return asking.result(), mine.commits
        asking.cancel()
        await asyncio.wait([asking])
        await self.provider.begin_again()
        speak_to(self.provider, self.provider.liar)
        return None, mine.commits

    async def wrong(self):
        return await self.provider.service.database.read(disagreements)

    async def kept(self):
        """How much there is of everything."""
        await wait_until(lambda: self.provider.service.database.read(is_settled))
        found = await self.provider.service.database.read(counted)
        found.update(f"mail {path.name.split('-')[1]}" for path in self.provider.settings.mails.glob("*.eml"))
        return found


def is_settled(connection):
    return not any(connection.scalar(text(f"SELECT count(*) FROM {rows}")) for rows in WAITING)


def counted(connection):
    found = Counter()
    for table in metadata.tables.values():
        columns = [func.count(column).label(f"{table.name}.{column.name}") for column in table.columns]
        found.update(connection.execute(select(*columns)).mappings().one())
    for query in ("SELECT type, count(*) FROM events GROUP BY type", "SELECT what, count(*) FROM audit GROUP BY what"):
        found.update({f"{query[7:11]} {name}": number for name, number in connection.execute(text(query))})
    return found


async def test_whoever_got_no_answer_asks_again_and_nothing_is_half_done(played, database_url, subtests):
    others = sorted(ALL.keys() - set(ALWAYS))
    draw = random.Random(f"{SEED} {database_url.partition(':')[0]}")  # others on each database
    for name in (*ALWAYS, *draw.sample(others, min(NUMBER, len(others)))):
        with subtests.test(name):
            await is_whole(played, name)
    await played.provider.service.database.read(audit_chain.verify, None)


async def is_whole(played, name):
    act, before = await played.ready(name)
    _, commits = await played.dies(act, None)
    once = more(await played.kept(), before)
    await act()
    twice = more(await played.kept(), before)
    for at in range(1, commits + 1):
        act, before = await played.ready(name)
        assert await played.dies(act, at) == (None, at)
        left = more(await played.kept(), before)
        assert await played.wrong() == []
        assert left == once or at < commits, "only the answer was lost"
        again = await act()
        assert again.status_code < 500, again.text
        # It is done once more, or refused; a sign-in that nobody heard of is followed by another one.
        both = {what: number for what in left.keys() | once.keys() if (number := left.get(what, 0) + once.get(what, 0))}
        end = unaudited(more(await played.kept(), before))
        assert end in map(unaudited, (left, once, twice, both))
        assert await played.wrong() == []


def more(now, before):
    return {what: now[what] - before[what] for what in now.keys() | before.keys() if now[what] != before[what]}


def unaudited(kept):
    """Without the audit, which has lines of what was refused, too."""
    return {what: number for what, number in kept.items() if not what.startswith(("audit.", "what "))}
