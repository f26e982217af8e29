"""The same tasks without a cache, where Turborepo cannot be had: same commands, same rooms, same exit codes."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib_pipeline.mirror import log_file, out_folder
from lib_pipeline.performing import WAITING, Outcome, order_for, perform
from lib_pipeline.plan import Task
from lib_pipeline.processes import Processes
from lib_pipeline.results import Result, Screen, Status
from lib_pipeline.rooms import Rooms


def run_plainly(tasks: Iterable[Task], rooms: Rooms, call: Path, screen: Screen, *, jobs: int) -> list[Result]:
    """Perform every task."""
    processes = Processes(jobs)

    def one(task: Task) -> Result:
        screen.started(task)
        log = log_file(call, task.member, task.target)
        out = out_folder(call, task.member, task.target)
        done = perform(order_for(task), rooms, processes, out=out, log=log)
        status = Status.FAILED if done.outcome is Outcome.FAILED else Status.RAN
        result = Result(task=task, status=status, seconds=done.seconds, note=done.note, log=log)
        screen.ended(result)
        return result

    with ThreadPoolExecutor(jobs + WAITING) as pool:
        try:
            return list(pool.map(one, tasks))
        except BaseException:
            processes.end()
            raise
