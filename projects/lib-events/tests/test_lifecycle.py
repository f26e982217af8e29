import asyncio

import pytest

from lib_events.lifecycle import Loop, running
from lib_events.testing import wait_until


class Recorder(Loop):
    """Counts its lives; fails in the first `failures` of them."""

    def __init__(self, *, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.lives = 0
        self.alive = asyncio.Event()
        self.cleaned = False
        self.wakes = 0

    async def run(self) -> None:
        self.lives += 1
        if self.lives <= self.failures:
            raise RuntimeError(f"life {self.lives}")
        self.alive.set()
        try:
            while await self.pause(60):
                self.wakes += 1
                self.alive.set()
        finally:
            self.cleaned = True


async def test_stop_waits_for_the_cleanup_and_is_safe_twice():
    loop = Recorder()
    loop.start()
    await loop.alive.wait()
    assert loop.running
    await loop.stop()
    assert loop.cleaned
    assert not loop.running
    await loop.stop()


async def test_a_loop_that_was_never_started_can_be_stopped():
    await Recorder().stop()


async def test_starting_twice_gives_one_life():
    loop = Recorder()
    loop.start()
    loop.start()
    await loop.alive.wait()
    await loop.stop()
    assert loop.lives == 1


async def test_a_failing_loop_is_logged_and_started_again(caplog):
    loop = Recorder(failures=2)
    async with running(loop):
        async with asyncio.timeout(5):
            await loop.alive.wait()
    assert loop.lives == 3
    assert str(loop.error) == "life 2"
    assert caplog.text.count("Recorder failed, starting again") == 2


async def test_wake_ends_the_pause_at_once_even_when_it_came_before():
    loop = Recorder()
    loop.wake()
    async with running(loop):
        await wait_until(lambda: loop.wakes == 1)
        loop.wake()
        await wait_until(lambda: loop.wakes == 2)


async def test_a_loop_can_be_started_again_after_a_stop():
    loop = Recorder()
    for _ in range(2):
        async with running(loop), asyncio.timeout(5):
            await loop.alive.wait()
            loop.alive.clear()
    assert loop.lives == 2


async def test_loops_stop_in_reverse_order_even_when_the_block_fails():
    stopped = []

    class Named(Loop):
        async def run(self) -> None:
            try:
                await self.pause(60)
            finally:
                stopped.append(self.name)

    async def fail_inside() -> None:
        async with running(Named(name="first"), Named(name="second")):
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(KeyError):
        await fail_inside()
    assert stopped == ["second", "first"]
