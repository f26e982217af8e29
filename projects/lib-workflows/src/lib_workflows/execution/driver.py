"""Drives one workflow coroutine, purely: what it asks for goes out, what has happened comes in.

Theory of operation. A workflow is a tree of *branches*: the function itself, and one branch for each argument
of `ctx.gather` and `ctx.race`. A branch is driven with `send` until it asks for an operation. Each operation
has a *path*: the path of its branch and its number in that branch ("3/1/2" is the second operation of the
first branch of the root's third operation). Paths do not depend on which branch runs first, so they name
the same operation in every replay.

Leaf operations go to `begun`; whoever drives performs them, writes their row and calls `deliver`. A delivery
runs every branch it makes ready, to rest, before it returns: the order of deliveries decides everything,
and it is the order of the rows. There is no clock, no database and no event loop in here; live and replay
run the same code.

Cancelling a branch withdraws what it only waits for. A step, a transaction or a child under way is asked to
stop and awaited: its row still comes, so it is known whether it had its effect, and its undo can be told. Of two
cancellations that meet there the one from further outside is thrown: a run that is cancelled does not end as a
block that took too long.
"""

import contextlib
import contextvars
import hashlib
import sys
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lib_workflows.authoring.guard import GUARD, drop, get_loop, leave, refused_await, set_loop
from lib_workflows.authoring.operation import (
    ContinueAsNew,
    Deadline,
    EnterTimeout,
    ExitTimeout,
    Gather,
    Operation,
    Race,
    RaceWon,
    RunChild,
    RunStep,
    RunTransaction,
    RunUndo,
    Sleep,
    TimeoutScope,
)
from lib_workflows.authoring.step import Step
from lib_workflows.errors import Cancelled, Continued, ExitRefused
from lib_workflows.exits import EXITS

# These are done once, and what they did is not taken back by doing them again.
ONCE_KINDS = frozenset(("transaction", "child", "start", "publish"))


@dataclass(slots=True)
class Outcome:
    """How an operation ended. `effect` tells the undo: it happened, it did not, or nobody knows.

    `is_itself`: the error is what was raised, not one of ours that wraps it.
    """

    value: Any = None
    error: BaseException | None = None
    effect: Literal["yes", "no", "unknown"] = "yes"
    is_itself: bool = False


@dataclass(slots=True, eq=False)
class Pending:
    """A leaf operation that has begun and has no row yet."""

    path: str
    operation: Operation[Any]
    branch: "Branch"
    begun_at: int  # by the clock of then: timers count from here, also on replay
    cancelling: Cancelled | None = None
    answered: bool = False  # a message has been taken for it
    look_again: bool = False  # an event may have passed it by
    is_late: bool = False  # its time is over, and it still looks
    looked_until: int = -1  # up to where in the log nothing was found; before it has looked, nowhere


@dataclass(slots=True, eq=False)
class Branch:
    """One line of control."""

    path: str
    awaitable: Awaitable[Any]
    parent: "Group | None" = None
    index: int = 0
    iterator: Generator[Any, Any, Any] | None = None
    count: int = 0  # operations so far
    randoms: int = 0
    waiting: "Pending | Group | None" = None
    must_cancel: Cancelled | None = None
    finished: bool = False


@dataclass(slots=True, eq=False)
class Group:
    """The branches of one gather or race."""

    path: str
    owner: Branch
    branches: list[Branch]
    results: list[Any]
    limit: int
    is_race: bool
    started: int = 0
    ended: int = 0
    error: BaseException | None = None  # what the owner will get
    winner: int | None = None
    decided: bool = False  # no more branches start
    announced: Pending | None = None  # the race's row is on its way


@dataclass(slots=True)
class UndoEntry:
    """Something that can be undone."""

    path: str
    operation: RunStep[Any] | RunTransaction[Any] | RunChild[Any]
    result: Any = None


@dataclass(slots=True, eq=False)
class Driver:
    """One run of a workflow function, from its start or again from its start."""

    run_id: str  # what chance is made of
    start: Callable[[], Awaitable[Any]]
    encode: Callable[[Any], Any] = lambda value: value  # makes the result's payload; may refuse it
    now: int = 0  # micros: the workflow's time, which never goes back
    heard_at: int = 0  # micros: the clock as of the last delivery; it may have been set back
    pending: dict[str, Pending] = field(default_factory=dict)
    begun: list[Pending] = field(default_factory=list)
    withdrawn: list[Pending] = field(default_factory=list)
    cancellations: list[Pending] = field(default_factory=list)
    outcome: Outcome | None = None
    undoing: bool = False
    delivered: int = 0  # operations that have ended
    is_replaying: bool = False
    patches: dict[str, bool] = field(default_factory=dict)  # name -> whether this run has the patch
    _cancellation: Cancelled | None = None
    _undo_log: dict[str, UndoEntry] = field(default_factory=dict)
    _undone_outcome: Outcome | None = None  # what the run ends with once everything is undone
    _given_up: Outcome | None = None  # the same, while something is still under way
    _last_failure: BaseException | None = None  # that the function was told of
    _has_gone_on: bool = False  # it has done something since that is done once
    _scopes: dict[str, TimeoutScope] = field(default_factory=dict)
    _ready: list[tuple[Branch, Any, BaseException | None]] = field(default_factory=list)
    _root: Branch | None = None
    _current: Branch | None = None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)  # the workflow runs in it

    # What the driver's owner calls

    def begin(self, now: int) -> None:
        """Run the function to its first rest."""
        self._hear(now)
        try:
            awaitable = self.start()
        except Exception as error:  # noqa: BLE001 - an input that no longer decodes fails the run
            self.outcome = Outcome(error=error)
            return
        self._root = Branch("", awaitable)
        self._ready.append((self._root, None, None))
        self._run()

    def deliver(self, path: str, outcome: Outcome, at: int) -> None:
        """Tell that the operation at `path` ended at `at`, and run on to the next rest."""
        self._hear(at)
        pending = self.pending.pop(path)
        self.delivered += 1
        operation = pending.operation
        if path in self._undo_log:
            self._settle_undo(path, outcome)
        if type(operation) is Deadline:
            self._expire(pending, operation)
        elif type(operation) is RaceWon:
            self._decide_race(pending)
        elif pending.cancelling is not None:
            self._ready.append((pending.branch, None, pending.cancelling))
        else:
            self._note(operation, outcome.error)
            self._ready.append((pending.branch, outcome.value, outcome.error))
        self._run()
        self._undo_what_was_given_up()

    def begin_again(self, at: int) -> None:
        """Tell that the run was retried at `at`: what it waits for has its whole time again; a sleep goes on."""
        self._hear(at)
        for pending in self.pending.values():
            if type(pending.operation) is not Sleep:
                pending.begun_at = at

    def go_on_as(self, run_id: str, at: int, *, undoes_all: bool) -> None:
        """Tell that what came so far was another run, and that this one, a fork of it, began at `at`.

        What that one has done is its to undo; `undoes_all`: a fork of a release before, which undoes that, too.
        """
        self.run_id = run_id
        self._hear(at)
        if not undoes_all:
            self._undo_log = {path: entry for path, entry in self._undo_log.items() if path in self.pending}
        for pending in self.pending.values():
            pending.begun_at = at

    def cancel(self, reason: str, at: int) -> None:
        """Throw `Cancelled` into the workflow; while it is being undone that changes nothing."""
        self._hear(at)
        if self.undoing or self.outcome is not None or self._root is None:
            return
        self._cancellation = Cancelled(reason)
        self._cancel(self._root, self._cancellation)
        self._run()

    def settle(self, pending: Pending, outcome: Outcome) -> None:
        """Tell how an operation ended, without running on: all that counts is whether and how it can be undone."""
        del self.pending[pending.path]
        if pending.path in self._undo_log:
            self._settle_undo(pending.path, outcome)

    def give_up(self, error: Cancelled, undone: Collection[str], at: int) -> None:
        """Drop the coroutine, await what is under way and may have effects, then undo all but what is `undone`."""
        self._hear(at)
        for branch in self._alive():
            self._close_branch(branch)
            branch.waiting = None
        self._undo_log = {path: entry for path, entry in self._undo_log.items() if path not in undone}
        self.pending = {path: each for path, each in self.pending.items() if each.operation.is_awaited}
        for pending in self.pending.values():
            pending.cancelling = error
        self.cancellations = list(self.pending.values())
        self.outcome, self._given_up = None, Outcome(error=error)  # whatever it has come to, it has come there wrongly
        self._undo_what_was_given_up()

    def _undo_what_was_given_up(self) -> None:
        if self._given_up is not None and not self.pending:
            outcome, self._given_up = self._given_up, None
            self._begin_undoing(outcome)
            self._run()

    def close(self) -> None:
        """Drop the coroutine without letting it do anything more."""
        for branch in self._alive():
            self._close_branch(branch)
            branch.waiting = None  # which holds it
        self._root = self._last_failure = None
        self.pending.clear()
        self.begun.clear()

    @property
    def refuses_input(self) -> bool:
        """Whether the function could not even begin."""
        return self._root is None and self.outcome is not None

    @property
    def undo_plan(self) -> list[str]:
        """The operations that are undone when the function fails, in that order."""
        return list(reversed(self._undo_log))

    @property
    def undone_for(self) -> BaseException | None:
        """Why the run undoes what it did."""
        return None if self._undone_outcome is None else self._undone_outcome.error

    @property
    def is_failing(self) -> bool:
        """Whether something has failed, and what goes on beside it is still being stopped."""
        groups = (branch.waiting for branch in self._alive() if isinstance(branch.waiting, Group))
        return any(group.error is not None for group in groups)

    @property
    def has_got_over(self) -> bool:
        """Whether the last failure that the function was told of is not why it fails: it has gone on from that."""
        if self.outcome is None or self._last_failure is None or not self._has_gone_on:
            return False
        return not _leads_to(self._last_failure, self.outcome.error)

    def _note(self, operation: Operation[Any], error: BaseException | None) -> None:
        if error is not None and not self.undoing:
            self._last_failure, self._has_gone_on = error, False
        elif operation.kind in ONCE_KINDS:
            self._has_gone_on = True

    def _hear(self, at: int) -> None:
        self.now, self.heard_at = max(self.now, at), at

    def random_bytes(self) -> bytes:
        """Sixteen bytes made of the run, the branch and a count: the same on every replay."""
        branch = self._current
        if branch is None:
            raise RuntimeError("ctx.random() and ctx.uuid() must be called by the workflow itself")
        branch.randoms += 1
        seed = f"{self.run_id}\0{branch.path}\0{branch.randoms}".encode()
        return hashlib.blake2b(seed, digest_size=16).digest()

    # Running branches

    def _run(self) -> None:
        # As `guarded` does; this is where the time goes.
        loop, hooks = get_loop(), sys.get_asyncgen_hooks()
        set_loop(GUARD)
        sys.set_asyncgen_hooks(None, leave)
        try:
            for ready in self._ready:  # it grows meanwhile
                self._advance(*ready)
        finally:
            self._ready.clear()
            self._current = None
            sys.set_asyncgen_hooks(*hooks)
            set_loop(loop)

    def _advance(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        if branch.finished:
            return
        branch.waiting = None
        self._current = branch
        try:
            asked = self._send(branch, value, error)
        except StopIteration as stop:
            self._end(branch, stop.value, None)
        except EXITS as exit_:
            self._end(branch, None, ExitRefused(exit_).with_traceback(exit_.__traceback__))
        except BaseException as failure:  # noqa: BLE001 - whatever the workflow raises is its outcome
            self._end(branch, None, failure)
        else:
            self._ask(branch, asked)
        finally:
            error = None  # its traceback holds this frame

    def _send(self, branch: Branch, value: Any, error: BaseException | None) -> Operation[Any]:
        """Drive a branch to the next operation that it has to wait for."""
        iterator = branch.iterator or self._start_branch(branch, error)
        while True:
            if error is None:
                asked = self.context.run(iterator.send, value)
            else:
                thrown, error = error, None
                try:
                    asked = self.context.run(iterator.throw, thrown)
                finally:
                    del thrown  # its traceback holds this frame
            value = None
            if type(asked) is EnterTimeout:
                value = self._enter_timeout(branch, asked)
            elif type(asked) is ExitTimeout:
                self._withdraw(asked.scope.path)
                self._scopes.pop(asked.scope.path, None)
            elif type(asked) is ContinueAsNew:
                error = self._cancellation or Continued(asked.payload)
            elif isinstance(asked, Operation):
                return asked
            else:
                error = refused_await(asked, branch.awaitable)

    def _start_branch(self, branch: Branch, error: BaseException | None) -> Generator[Any, Any, Any]:
        error = error or branch.must_cancel
        if error is not None:
            self._close_branch(branch)
            raise error
        branch.iterator = branch.awaitable.__await__()
        return branch.iterator

    def _ask(self, branch: Branch, operation: Operation[Any]) -> None:
        if type(operation) is RunUndo:
            self._begin(branch, f"{operation.target}/undo", operation)
            return
        branch.count += 1
        path = f"{branch.path}/{branch.count}" if branch.path else str(branch.count)
        if isinstance(operation, Gather):
            self._open(branch, path, operation.branches, operation.limit, is_race=False)
        elif isinstance(operation, Race):
            self._open(branch, path, operation.branches, None, is_race=True)
        else:
            if operation.undo is not None:
                self._undo_log[path] = UndoEntry(path, operation)  # type: ignore[arg-type]
            self._begin(branch, path, operation)
        if branch.must_cancel is not None:
            reason, branch.must_cancel = branch.must_cancel, None
            self._cancel(branch, reason)

    def _begin(self, branch: Branch, path: str, operation: Operation[Any]) -> Pending:
        pending = Pending(path, operation, branch, self.heard_at)
        self.pending[path] = pending
        self.begun.append(pending)
        branch.waiting = pending
        return pending

    def _end(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        branch.finished = True
        if branch is self._root and error is None and not self.undoing:
            try:
                value = self.encode(value)
            except Exception as failure:  # noqa: BLE001 - a result that cannot be kept fails the run
                error = failure
        if branch.parent is not None:
            self._branch_ended(branch.parent, branch, value, error)
        elif self.undoing:
            assert self.outcome is None  # noqa: S101 - the root ends once
            self.outcome = self._undone_outcome
        elif error is not None and self._undo_log and not isinstance(error, Continued):
            self._begin_undoing(Outcome(error=error))
        else:
            self.outcome = Outcome(value, error)

    # Gather and race

    def _open(
        self, owner: Branch, path: str, awaitables: Sequence[Awaitable[Any]], limit: int | None, *, is_race: bool
    ) -> None:
        count = len(awaitables)
        group = Group(path, owner, [], [None] * count, limit or count, is_race)
        group.branches = [Branch(f"{path}/{n}", a, group, n - 1) for n, a in enumerate(awaitables, start=1)]
        owner.waiting = group
        if count == 0:
            self._ready.append((owner, [], None))
        self._start_more(group)

    def _start_more(self, group: Group) -> None:
        while not group.decided and group.started < len(group.branches) and group.started - group.ended < group.limit:
            self._ready.append((group.branches[group.started], None, None))
            group.started += 1

    def _branch_ended(self, group: Group, branch: Branch, value: Any, error: BaseException | None) -> None:
        group.ended += 1
        group.results[branch.index] = value
        if not group.decided:
            if group.is_race:
                group.decided = True
                group.winner = branch.index
                group.error = error
                owner = group.owner
                group.announced = self._begin(owner, group.path, RaceWon(branch.index))
                owner.waiting = group
            elif error is not None:
                group.error = error
                self._stop_branches(group, Cancelled("a sibling failed", _scope(group.path)))
        self._start_more(group)
        self._close_group_if_done(group)

    def _decide_race(self, pending: Pending) -> None:
        group = pending.branch.waiting
        assert isinstance(group, Group)  # noqa: S101 - a race's row is awaited by its owner's group
        group.announced = None
        self._stop_branches(group, Cancelled("another branch won", _scope(group.path)))
        self._close_group_if_done(group)

    def _stop_branches(self, group: Group, reason: Cancelled) -> None:
        for branch in self._unfinished(group):
            self._cancel(branch, reason)

    def _unfinished(self, group: Group) -> list[Branch]:
        """Start no more branches of a group; returns those that have begun and go on."""
        group.decided = True
        for branch in group.branches[group.started :]:
            self._close_branch(branch)
        del group.branches[group.started :]
        return [branch for branch in group.branches if not branch.finished]

    def _close_group_if_done(self, group: Group) -> None:
        if group.announced is not None or group.ended < len(group.branches) or group.owner.waiting is not group:
            return
        group.owner.waiting = None
        if group.error is not None:
            self._ready.append((group.owner, None, group.error))
        elif group.is_race:
            assert group.winner is not None  # noqa: S101 - a race without an error has a winner
            self._ready.append((group.owner, (group.winner, group.results[group.winner]), None))
        else:
            self._ready.append((group.owner, group.results, None))

    # Cancelling

    def _cancel(self, branch: Branch, reason: Cancelled) -> None:
        self._overrule(branch, reason)
        branches = [branch]  # not by recursion: groups may nest deeper than Python's stack
        while branches:
            branch = branches.pop()
            if isinstance(branch.waiting, Group):
                branches += reversed(self._cancel_group(branch.waiting, reason))
            else:
                self._cancel_leaf(branch, branch.waiting, reason)

    def _overrule(self, branch: Branch, reason: Cancelled) -> None:
        """Blocks within the branch end by `reason`, if that comes from outside of them, although their time may be over
        before they are left."""
        for scope in self._scopes.values():
            is_within = not branch.path or scope.path.startswith(f"{branch.path}/")
            if is_within and reason.scope < _scope(scope.path) and reason.outranks(scope.overruled_by):
                scope.overruled_by = reason

    def _cancel_leaf(self, branch: Branch, waiting: Pending | None, reason: Cancelled) -> None:
        if waiting is None:
            # It is about to run: it hears of this at its next operation.
            if reason.outranks(branch.must_cancel):
                branch.must_cancel = reason
        elif waiting.operation.is_awaited:
            if waiting.cancelling is None:
                self.cancellations.append(waiting)
            if reason.outranks(waiting.cancelling):
                waiting.cancelling = reason
        else:
            self._withdraw(waiting.path)
            branch.waiting = None
            self._ready.append((branch, None, reason))

    def _cancel_group(self, group: Group, reason: Cancelled) -> list[Branch]:
        """Stop a group; returns the branches to be cancelled with it."""
        if group.announced is not None:
            self._withdraw(group.announced.path)
            group.announced = None
        if reason.outranks(group.error):
            group.error = reason
        unfinished = self._unfinished(group)
        self._close_group_if_done(group)
        return unfinished

    def _withdraw(self, path: str) -> None:
        pending = self.pending.pop(path, None)
        if pending is not None:
            self.withdrawn.append(pending)

    def _close_branch(self, branch: Branch) -> None:
        branch.finished = True
        drop(branch.iterator or branch.awaitable)

    def _alive(self) -> list[Branch]:
        """The branches that go on, the innermost first."""
        found: list[Branch] = []
        waiting = [self._root] if self._root is not None else []
        while waiting:
            branch = waiting.pop()
            if not branch.finished:
                found.append(branch)
                waiting += branch.waiting.branches if isinstance(branch.waiting, Group) else []
        return found[::-1]

    # Timeouts of blocks

    def _enter_timeout(self, branch: Branch, asked: EnterTimeout) -> TimeoutScope:
        branch.count += 1
        path = f"{branch.path}/{branch.count}" if branch.path else str(branch.count)
        self._begin(branch, path, Deadline(asked.seconds))
        branch.waiting = None
        scope = TimeoutScope(path)
        self._scopes[path] = scope
        return scope

    def _expire(self, pending: Pending, operation: Deadline) -> None:
        expiry = Cancelled(f"a block took longer than {operation.seconds} s", _scope(pending.path))
        self._scopes[pending.path].expiry = expiry
        self._note(operation, expiry)
        self._cancel(pending.branch, expiry)

    # Undoing

    def _settle_undo(self, path: str, outcome: Outcome) -> None:
        if outcome.effect == "no":
            del self._undo_log[path]
        elif outcome.effect == "yes":
            self._undo_log[path].result = outcome.value

    def _begin_undoing(self, outcome: Outcome) -> None:
        self.undoing = True
        self._undone_outcome = outcome
        self._root = Branch("", self._undo_all())
        self._ready.append((self._root, None, None))

    async def _undo_all(self) -> None:
        for entry in reversed(self._undo_log.values()):
            operation = entry.operation
            assert operation.undo is not None  # noqa: S101 - only these are logged
            # One that fails has its row; the others must be undone all the same.
            with contextlib.suppress(Exception):
                await RunUndo(
                    entry.path,
                    operation.undo,
                    (entry.result, *operation.args),
                    transactional=isinstance(operation, RunTransaction) and not isinstance(operation.undo, Step),
                )


def _leads_to(cause: BaseException, error: BaseException | None) -> bool:
    """Whether `error` is `cause`, or was raised from or while handling it, or holds it."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop()
        if found is cause:
            return True
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            waiting += [found.__cause__, found.__context__]
            waiting += found.exceptions if isinstance(found, BaseExceptionGroup) else ()
    return False


def _scope(path: str) -> tuple[int, ...]:
    return tuple(int(part) for part in path.split("/"))
