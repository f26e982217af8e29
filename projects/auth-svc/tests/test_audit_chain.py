"""The audit's chain: whatever is done to its lines is found, on the real database; and it holds up nobody."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from auth_svc import audit, audit_chain
from auth_svc.audit import Actor
from auth_svc.composition import SCHEMAS
from auth_svc.offline import verify_audit
from auth_svc.pruner import Pruner
from auth_svc.settings import AuthSettings
from lib_auth.audit_chain import START, ChainBroken, ChainVerifier, Head
from lib_events.clock import SystemClock
from lib_events.database import open_database
from lib_events.lifecycle import running
from lib_events.testing import FakeClock, wait_until

EXAMPLES = Path(__file__).parents[3] / "examples"


async def chained(database):
    """Wait until every line has its place, and return where the chain stands."""

    async def found():
        state = await database.read(audit_chain.state)
        return None if state.waiting else state

    return await wait_until(found)


@pytest.fixture
async def kept(tmp_path, sqlite_url, run_provider):
    """A database with some lines, whose service has stopped: its settings and its head."""
    async with run_provider(tmp_path, sqlite_url) as provider:
        for name in ("ada", "bea", "cleo", "dora"):
            await provider.add_user(name)
        head = (await chained(provider.service.database)).head
    return AuthSettings(data=tmp_path / "evs", auth_database_url=sqlite_url), head


def alter(settings, folder, *statements):
    """The same database after somebody has written to its file."""
    source = settings.auth_database_url.removeprefix("sqlite:///")
    copy = folder / "altered.db"
    shutil.copy(source, copy)
    with sqlite3.connect(copy) as raw:
        for statement in statements:
            raw.execute(statement)
    raw.close()
    return settings.model_copy(update={"auth_database_url": f"sqlite:///{copy}"})


async def test_an_untouched_audit_is_unbroken_from_its_first_line(kept):
    settings, head = kept
    assert head.position == 6
    verdict = await verify_audit(settings, head)
    assert verdict.startswith("6 lines, unbroken since 20")
    assert verdict.endswith(f"head {head}")


async def test_whatever_is_done_to_a_line_names_the_first_line_that_tells(kept, tmp_path, subtests):
    settings, _ = kept
    columns = "at, who, what, about, address, detail, position, hash"
    of_the_second = "FROM audit WHERE position = 2"
    moved = "UPDATE audit SET position = {} WHERE position = {}"
    for what, broken, statements in (
        ("a detail is changed", 3, ["UPDATE audit SET detail = '{}' WHERE position = 3"]),
        ("a moment is changed", 2, ["UPDATE audit SET at = at + 1 WHERE position = 2"]),
        ("the actor is changed", 1, ["UPDATE audit SET who = 'nobody' WHERE position = 1"]),
        ("a hash is changed", 4, ["UPDATE audit SET hash = hex(randomblob(32)) WHERE position = 4"]),
        ("the first line is removed", 1, ["DELETE FROM audit WHERE position = 1"]),
        ("a line is removed", 3, ["DELETE FROM audit WHERE position = 3"]),
        (
            "a line is removed and the gap closed",
            3,
            ["DELETE FROM audit WHERE position = 3", moved.format(3, 4), moved.format(4, 5)],
        ),
        (
            "a line is inserted",
            3,
            [
                "UPDATE audit SET position = -position WHERE position > 2",
                "UPDATE audit SET position = 1 - position WHERE position < 0",
                f"INSERT INTO audit ({columns}) SELECT at, who, what, about, address, detail, 3, hash {of_the_second}",
            ],
        ),
        ("two lines are swapped", 2, [moved.format(-1, 2), moved.format(2, 3), moved.format(3, -1)]),
        ("the tail is cut", 5, ["DELETE FROM audit WHERE position = 5"]),
    ):
        with subtests.test(what):
            with pytest.raises(ChainBroken) as caught:
                await verify_audit(alter(settings, tmp_path, *statements), None)
            assert caught.value.position == broken, caught.value


async def test_a_tail_cut_with_its_traces_is_found_by_a_known_head(kept, tmp_path):
    settings, head = kept
    cut = alter(
        settings,
        tmp_path,
        "DELETE FROM audit WHERE position = 6",
        "UPDATE audit_chain SET position = 5, hash = (SELECT hash FROM audit WHERE position = 5)",
    )
    assert "5 lines" in await verify_audit(cut, None)
    with pytest.raises(ChainBroken, match="line 6: it is missing: the known head is 6"):
        await verify_audit(cut, head)
    with pytest.raises(ChainBroken, match="line 6: its hash is"):
        await verify_audit(settings, Head(6, "0" * 64))


async def test_a_beginning_that_was_cut_off_without_being_pruned_is_found(kept, tmp_path):
    settings, head = kept
    anchor = "SELECT hash FROM audit WHERE position = 3"
    cut = alter(
        settings,
        tmp_path,
        f"UPDATE audit_chain SET anchor_position = 3, anchor_hash = ({anchor}), anchored_at = 1",
        "DELETE FROM audit WHERE position <= 3",
    )
    for known in (None, head):
        with pytest.raises(ChainBroken, match="line 3: it and those before it are gone, and no line says that"):
            await verify_audit(cut, known)


async def test_a_chain_whose_own_row_is_gone_is_broken_and_no_stack_trace(kept, tmp_path):
    settings, head = kept
    with pytest.raises(ChainBroken, match="line 0: the row that says"):
        await verify_audit(alter(settings, tmp_path, "DELETE FROM audit_chain"), head)


async def test_the_command_says_what_it_found_and_exits_with_one_when_it_is_broken(kept, tmp_path):
    settings, head = kept

    def command(url, *more):
        return subprocess.run(
            [sys.executable, "-m", "auth_svc", "verify-audit", "--data", settings.data, "--database-url", url, *more],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    good, broken = await asyncio.gather(
        asyncio.to_thread(command, settings.auth_database_url, "--head", str(head)),
        asyncio.to_thread(command, alter(settings, tmp_path, "DELETE FROM audit WHERE position = 2").auth_database_url),
    )
    assert (good.returncode, good.stderr) == (0, "")
    assert "6 lines, unbroken since 20" in good.stdout
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "the audit is broken: line 2: it is missing" in broken.stderr


async def test_lines_from_before_the_chain_are_chained_by_the_first_start(kept, tmp_path, run_provider):
    settings, head = kept
    before = alter(
        settings,
        tmp_path,
        "UPDATE audit SET position = NULL, hash = NULL",
        f"UPDATE audit_chain SET position = 0, hash = '{'0' * 64}'",
    )
    async with run_provider(tmp_path, before.auth_database_url, data=settings.data) as provider:
        assert (await chained(provider.service.database)).head == head


async def test_lines_written_at_once_are_all_chained_whatever_the_order_of_their_commits(provider_on_both):
    database = provider_on_both.service.database

    def write(connection, number):
        audit.record(connection, Actor(number, "test"), "test.written", about=str(number), text="ß\u2028😀")

    await asyncio.gather(*(database.transact(write, number) for number in range(200)))
    state = await chained(database)
    verifier = await database.read(audit_chain.verify, state.head)
    assert verifier.lines == state.head.position >= 200


async def test_two_that_chain_at_once_give_each_line_one_place(provider_on_both):
    database = provider_on_both.service.database

    def write(connection):
        audit.record(connection, Actor(1, "test"), "test.written")

    for _ in range(20):
        await asyncio.gather(database.transact(write), *(database.transact(audit_chain.chain_next) for _ in range(3)))
    state = await chained(database)
    assert (await database.read(audit_chain.verify, None)).head == state.head


async def test_pruned_lines_leave_an_anchor_from_which_the_rest_still_verifies(provider_on_both):
    provider, database = provider_on_both, provider_on_both.service.database
    whole = await chained(database)
    pruner = provider.actor()
    assert await database.transact(audit_chain.prune, pruner.at, pruner, 1) == 1
    state = await chained(database)
    assert (state.anchor.position, state.head.position) == (1, whole.head.position + 1)
    verifier = await database.read(audit_chain.verify, whole.head)
    assert verifier.lines == whole.head.position
    with pytest.raises(ChainBroken, match="it was pruned, so nobody can tell"):
        await database.read(audit_chain.verify, START)
    assert await database.transact(audit_chain.prune, 0, pruner, 500) == 0


async def test_the_pruner_deletes_what_is_older_than_the_settings_say_and_nothing_else(provider):
    database, clock = provider.service.database, FakeClock(SystemClock().micros())
    whole = await chained(database)
    clock.advance(timedelta(days=29))
    async with running(Pruner(database, clock), Pruner(database, clock, audit_days=30)):
        clock.advance(timedelta(days=2))
        async with running(Pruner(database, clock, audit_days=30)):

            async def pruned():
                state = await chained(database)
                return state if state.anchor == whole.head else None

            state = await wait_until(pruned)
    assert state.head.position == whole.head.position + 1  # it says so itself
    assert (await database.read(audit_chain.verify, whole.head)).lines == 1


async def test_anybody_who_may_read_the_audit_can_verify_it_page_by_page(provider_on_both):
    provider = provider_on_both
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    await chained(provider.service.database)
    told = (await provider.http.get("/v1/admin/audit/head", headers=admin)).json()
    verifier, cursor = None, "0"
    while cursor:
        url = f"/v1/admin/audit/chain?after={cursor}&limit=2"
        page = (await provider.http.get(url, headers=admin)).json()
        verifier = verifier or ChainVerifier(Head(**page["start"]))
        assert page["start"] == {"position": verifier.head.position, "hash": verifier.head.hash}
        for line in page["items"]:
            verifier.add(line)
        cursor = page["next_cursor"]
    verifier.finish(Head(told["position"], told["hash"]))
    assert verifier.lines == told["position"] >= 3
    shown = (await provider.http.get("/v1/admin/audit?what=session.started", headers=admin)).json()["items"]
    assert [line["what"] for line in shown] == ["session.started"]


async def test_an_export_is_verified_by_the_few_lines_that_the_reference_shows(kept, tmp_path):
    settings, head = kept
    database = await open_database(settings.auth_database_url, service="auth-svc", schemas=SCHEMAS)
    lines = [json.dumps(line) for line in await database.read(audit_chain.lines, 0, 100)]
    await database.close()

    def verify(exported):
        command = [sys.executable, EXAMPLES / "verify_audit.py"]
        text = "\n".join(exported) + "\n"
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    assert verify(lines).stdout == f"{head}\n"
    broken = verify([*lines[:2], lines[2].replace("user.registered", "user.forgotten"), *lines[3:]])
    assert (broken.returncode, broken.stderr) == (1, "broken at line 3\n")
    assert verify([lines[0], *lines[2:]]).stderr == "broken at line 2\n"


async def test_a_head_is_read_as_it_is_written():
    head = Head(12, "ab" * 32)
    assert Head.parse(f" {head}\n") == head
    for wrong in ("", "12", f"12:{'ab' * 31}", f"x:{'ab' * 32}"):
        with pytest.raises(ValueError, match="a head must be POSITION:HASH"):
            Head.parse(wrong)
