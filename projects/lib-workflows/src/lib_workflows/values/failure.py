"""Exceptions in the history: what is kept of one, and how a declared one becomes itself again."""

import dataclasses
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Literal

from pydantic_core import from_json, to_json

from lib_events.texts import fit, message_of
from lib_workflows.errors import DefinitionError, ErrorLost, ErrorRecord, RunCancelled, WorkflowsError
from lib_workflows.values.codec import decode_json, encode_given, encode_json

STACK_LIMIT_CHARACTERS = 16_000

type Told = Literal["itself", "wrapped"]  # how a workflow hears of what an operation raised


class RemoteError(Exception):
    """An error of another process, as it was recorded there; the cause of the exception it becomes here."""

    def __init__(self, record: ErrorRecord) -> None:
        super().__init__(f"{record.type}: {record.message}\n\n{record.stack}")
        self.record = record

    @classmethod
    def rebuilt(cls, record: ErrorRecord, declared: Sequence[type[Exception]]) -> Exception:
        """The exception itself where it can be made again, else a `RemoteError`."""
        remote = cls(record)
        error = rebuild(record, subclasses(declared)) or rebuild_loaded(record)
        if error is None:
            return remote
        error.__cause__ = remote
        return error


def record_of(error: BaseException, *, stack: bool = True) -> ErrorRecord:
    """What the history keeps of `error`, whatever its class does when it is asked: somebody waits for this record."""
    if isinstance(error, RemoteError):
        return error.record
    kind = type(error)
    try:
        text = "".join(traceback.format_exception(error)) if stack else ""
        name, path = kind.__name__, f"{kind.__module__}:{kind.__qualname__}"
    except Exception:  # noqa: BLE001 - its class, its notes and what they say are anybody's code
        text, name, path = "", "Exception", ""
    return ErrorRecord(
        type=name,
        message=message_of(error),
        stack=fit(text[-STACK_LIMIT_CHARACTERS:]),
        path=path,
        state=_state_of(error),
    )


def encode_record(record: ErrorRecord) -> str:
    """As JSON text."""
    return to_json(record).decode()


def decode_record(text: str) -> ErrorRecord:
    """From JSON text."""
    return ErrorRecord(**from_json(text))


def rebuild(record: ErrorRecord, declared: Sequence[type[BaseException]]) -> Exception | None:
    """The exception itself, when it is one of `declared`; else None."""
    for kind in declared:
        if record.path == f"{kind.__module__}:{kind.__qualname__}" and issubclass(kind, Exception):
            return _revive(kind, record)
    return None


def check_declared(errors: object, what: str) -> None:
    """Raise `DefinitionError` unless these are what `errors=` takes: to find out when one is raised is too late."""
    if not isinstance(errors, tuple | list) or not all(_is_exception(each) for each in errors):
        raise DefinitionError(f"{what} must be exception classes in a tuple, got {errors!r:.100}; write (ValueError,)")


def _is_exception(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Exception)


def is_declared(error: BaseException, declared: Sequence[type[BaseException]]) -> bool:
    """Whether `error` is exactly one of `declared`, or of a subclass of one."""
    return isinstance(error, tuple(declared))


def rebuild_loaded(record: ErrorRecord) -> Exception | None:
    """The exception itself, when its class is loaded in this process; never imports anything."""
    module, _, qualified = record.path.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return _revive(found, record) if isinstance(found, type) and issubclass(found, Exception) else None


def rebuild_imported(record: ErrorRecord) -> Exception:
    """The exception itself, whose class was loaded when a workflow was told of it; raises `ErrorLost`.

    Its module is imported where nothing has done so yet: it may be one that a step imports as it runs.
    """
    try:
        importlib.import_module(record.path.partition(":")[0])
    except Exception as missing:
        raise ErrorLost(record.path) from missing
    if (error := rebuild_loaded(record)) is None:
        raise ErrorLost(record.path)
    return error


def subclasses(declared: Sequence[type[Exception]]) -> list[type[Exception]]:
    """`declared` and every loaded subclass of each: raising a subclass of a declared error is declared too."""
    found: list[type[Exception]] = []
    waiting = list(declared)
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.append(kind)
            waiting.extend(kind.__subclasses__())
    return found


def cancelled_record(run_id: str, reason: str) -> ErrorRecord:
    """The record of a run that was cancelled."""
    record = record_of(RunCancelled(run_id, reason), stack=False)
    return dataclasses.replace(record, message=reason)


def stopped(meta: str | None) -> str:
    """The meta of an operation that failed when it was asked to stop: its failure is not why anything failed."""
    return encode_json({**(decode_json(meta) if meta else {}), "stopped": True})


def was_stopped(meta: str | None) -> bool:
    """Whether an operation's failure came after it had been asked to stop."""
    return meta is not None and bool(decode_json(meta).get("stopped"))


def _state_of(error: BaseException) -> str:
    try:
        return encode_given({"args": error.args, "attributes": vars(error)}, "state of an error")
    except Exception:  # noqa: BLE001 - what is no data, too large, or cannot even be asked for
        return ""


def _revive(kind: type[Exception], record: ErrorRecord) -> Exception | None:
    """The exception again; None where its class does not let it be made."""
    if not record.state:
        return None
    try:
        return _made_again(kind, from_json(record.state))
    except Exception:  # noqa: BLE001 - its class is anybody's code
        return None


def _made_again(kind: type[Exception], state: dict[str, Any]) -> Exception:
    # Not through __init__: its parameters need not be what it left in `args`.
    error = kind.__new__(kind, *state["args"])
    error.args = tuple(state["args"])
    attributes = state["attributes"]
    if isinstance(error, WorkflowsError) and isinstance(attributes.get("error"), dict):
        attributes["error"] = ErrorRecord(**attributes["error"])
    error.__dict__.update(attributes)
    return error
