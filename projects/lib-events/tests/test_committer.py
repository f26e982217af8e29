"""Who is in a group commit."""

import asyncio

from lib_events.adapters.committer import GroupCommitter, resolve


async def test_what_comes_a_turn_of_the_loop_later_is_in_the_same_commit():
    groups = []

    async def commit(group):
        groups.append(len(group))
        for member in group:
            resolve(member)

    committer, loop = GroupCommitter(commit), asyncio.get_running_loop()
    later = loop.create_future()
    committer.submit()
    loop.call_soon(lambda: later.set_result(committer.submit()))
    await committer.finish()
    assert (groups, later.result().done()) == ([2], True)
