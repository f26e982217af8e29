"""How one task is performed, with and without a cache: its commands one after the other, its output in a log."""

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lib_pipeline.inventory import digest_of, still_holds
from lib_pipeline.plan import Task
from lib_pipeline.processes import CallEnded, Processes
from lib_pipeline.rooms import RoomNotMade, Rooms, locked
from lib_pipeline.targets import NO_TESTS_COLLECTED, Command, Target
from lib_pipeline.witnessed import asked_to_witness, complaint, read_beyond

WAITING = 2  # a test run and a type checker may wait for their turn, and keep nobody else waiting
RECEIPT = "receipt.json"
CHANGED_MEANWHILE = 75  # EX_TEMPFAIL: passed, but what passed is no longer what is on disk


class Outcome(StrEnum):
    """How a task ended."""

    PASSED = "passed"
    FAILED = "failed"
    CHANGED = "changed"


@dataclass(frozen=True, kw_only=True)
class Performed:
    """The outcome of one task, the seconds it took, and what there is to say about it."""

    outcome: Outcome
    seconds: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A task as whoever performs it knows it."""

    member: str
    target: Target
    key: str
    commands: tuple[Command, ...]
    files: Mapping[str, str]
    beyond: frozenset[str]


def order_for(task: Task) -> Order:
    """The order to perform a planned task."""
    return Order(
        member=task.member,
        target=task.target,
        key=task.key,
        commands=task.commands,
        files=task.files,
        beyond=task.beyond,
    )


def perform(order: Order, rooms: Rooms, processes: Processes, *, out: Path, log: Path) -> Performed:
    """Run a task's commands until one fails: products and, if it passed, a receipt into `out`, output into `log`."""
    out.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        for room in dict.fromkeys(command.room for command in order.commands):
            rooms.prepare(room, order.member)
        with _turn(order, rooms):
            began = time.monotonic()
            outcome, note = _run_all(order, rooms, processes, out, log)
            seconds = time.monotonic() - began
        if outcome is Outcome.PASSED:
            write_receipt(order, out, seconds=seconds, note=note)
    except (OSError, RoomNotMade, CallEnded) as error:
        _append(log, f"{error}\n")
        outcome, note, seconds = Outcome.FAILED, str(error).splitlines()[0], time.monotonic() - began
    return Performed(outcome=outcome, seconds=seconds, note=note)


def _turn(order: Order, rooms: Rooms) -> AbstractContextManager[None]:
    """Test runs take all cores and are timed; type checkers share what they remember: neither bears company."""
    if order.target not in (Target.TEST, Target.TYPES):
        return nullcontext()
    rooms.folder.mkdir(parents=True, exist_ok=True)
    return locked(rooms.folder / f"{order.target}-run.lock")


def _run_all(order: Order, rooms: Rooms, processes: Processes, out: Path, log: Path) -> tuple[Outcome, str]:
    """The outcome, and what there is to say about it."""
    note = ""
    for command in order.commands:
        code = _run(command, order, rooms, processes, out=out, log=log)
        if code == NO_TESTS_COLLECTED and order.target is Target.TEST:
            note = "no tests were collected"
        elif code != 0:
            return Outcome.FAILED, _why(command, code)
    if beyond := read_beyond(_notes(log), order.beyond):
        _append(log, "opened, and not in the key:\n" + "".join(f"  {path}\n" for path in beyond))
        return Outcome.FAILED, complaint(beyond)
    if not still_holds(rooms.root, order.files):
        return Outcome.CHANGED, "files changed meanwhile: not remembered"
    return Outcome.PASSED, note


def _run(command: Command, order: Order, rooms: Rooms, processes: Processes, *, out: Path, log: Path) -> int:
    """The exit code of one command."""
    environment = rooms.environment(command, order.member)
    if order.beyond:
        environment = asked_to_witness(environment, root=rooms.root, notes=_notes(log))
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command.arguments)}\n".encode())
        file.flush()
        arguments = rooms.arguments(command, order.member, out)
        return processes.run(arguments, at=rooms.root, environment=environment, output=file)


def _notes(log: Path) -> Path:
    return log.with_suffix(".opened")


def _why(command: Command, code: int) -> str:
    ended = f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
    return f"{command.arguments[0]} {ended}"


def _append(log: Path, text: str) -> None:
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        sys.stderr.write(f"{text}{error}\n")


def write_receipt(order: Order, out: Path, *, seconds: float, note: str) -> None:
    """Say what passed, under which key, and what it made: a result from the cache counts only with its receipt."""
    products = {path.relative_to(out).as_posix(): digest_of(path) for path in sorted(out.rglob("*")) if path.is_file()}
    content = {
        "member": order.member,
        "target": order.target,
        "key": order.key,
        "seconds": round(seconds, 3),
        "note": note,
        "products": products,
    }
    partial = out / f".{RECEIPT}"
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(out / RECEIPT)


def read_receipt(out: Path, *, member: str, target: Target, key: str) -> Performed | None:
    """What a receipt says, if it is this task's and its products are whole; else None."""
    try:
        content = json.loads((out / RECEIPT).read_text(encoding="utf-8"))
        if [content["member"], content["target"], content["key"]] != [member, target, key]:
            return None
        there = {path.relative_to(out).as_posix(): digest_of(path) for path in out.rglob("*") if path.is_file()}
        there.pop(RECEIPT, None)
        if there != content["products"]:
            return None
        return Performed(outcome=Outcome.PASSED, seconds=float(content["seconds"]), note=str(content["note"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
