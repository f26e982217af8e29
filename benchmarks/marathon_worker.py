"""One process of the marathon: an engine that works, and a client that starts its share of the runs.

    python benchmarks/marathon_worker.py URL INDEX WORKERS RUNS FOLDER [CLIENTS]

It may be killed at any time and started again: it goes on where FOLDER says that its share is done to.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from marathon_flows import DONE_TO, WORKFLOWS, flow_of, run_id

from lib_events.database import DatabaseError
from lib_events.http.server import new_event_loop
from lib_workflows import Engine, RunCancelled, RunFailed
from lib_workflows.errors import CommandRefused

CLIENTS = 150
LEASE_SECONDS = 2.0
AGAIN_SECONDS = 0.2  # after the database refused
PATIENCE_SECONDS = 20.0  # then it asks again what has become of a run


class Share:
    """The numbers of one process, and up to where they are done."""

    def __init__(self, index: int, workers: int, runs: int, folder: Path) -> None:
        self._place = folder / f"place-{index}"
        self._done = folder / f"done-{index}"
        begin = int(self._place.read_text()) if self._place.exists() else index
        self._waiting: Iterator[int] = iter(range(begin, runs, workers))
        self._under_way: set[int] = set()

    def take(self) -> int | None:
        """The next number, or None when all are taken."""
        number = next(self._waiting, None)
        if number is not None:
            self._under_way.add(number)
        return number

    def finished(self, number: int) -> None:
        """Note how far the share is done; a crash may lose the note, not the run."""
        if number == min(self._under_way):
            text = self._place.with_suffix(".new")
            text.write_text(str(number))
            text.replace(self._place)
        self._under_way.discard(number)

    def complete(self) -> None:
        """All is done."""
        self._done.touch()


async def play(engine: Engine, number: int) -> None:
    """See one run through, whatever the database says."""
    while True:
        try:
            handle = await engine.start(flow_of(number), number, id=run_id(number))
            do = DONE_TO.get(flow_of(number).name)
            if do is not None and await handle.status() not in ("completed", "failed", "cancelled"):
                with suppress(CommandRefused):
                    await do(handle, number)
            await handle.result(PATIENCE_SECONDS)
        except (DatabaseError, TimeoutError):
            await asyncio.sleep(AGAIN_SECONDS)
        except Exception as error:
            if not isinstance(error, RunFailed | RunCancelled) and type(error).__name__ != "Refused":
                raise
            return
        else:
            return


async def client(engine: Engine, share: Share) -> None:
    """Play one run after the other."""
    while (number := share.take()) is not None:
        await play(engine, number)
        share.finished(number)


async def live(url: str, share: Share, clients: int) -> None:
    """Work until standard input ends."""
    async with Engine.open(url, WORKFLOWS, lease_seconds=LEASE_SECONDS) as engine:
        await asyncio.gather(*(client(engine, share) for _ in range(clients)))
        share.complete()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def main() -> None:
    """Begin as soon as the database is there."""
    url, index, workers, runs, folder, *clients = sys.argv[1:]
    while True:
        share = Share(int(index), int(workers), int(runs), Path(folder))
        try:
            return await live(url, share, int(clients[0]) if clients else CLIENTS)
        except DatabaseError as error:
            print(f"worker {index} begins again: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(), loop_factory=new_event_loop)
