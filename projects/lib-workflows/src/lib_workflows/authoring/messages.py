"""What reaches a running workflow from outside: signals, updates, decisions."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lib_events.event import EventType
from lib_events.texts import TEXT_CHARACTERS
from lib_workflows.authoring.operation import Operation, Reply
from lib_workflows.errors import DefinitionError
from lib_workflows.values.codec import Codec
from lib_workflows.values.texts import check_name, check_text

__all__ = ["Decision", "EventType", "Principal", "Signal", "Update", "UpdateCall"]


class Signal[T]:
    """A named message to a running workflow; one sent before the workflow waits for it is kept."""

    def __init__(self, name: str, model: type[T]) -> None:
        self.name = check_name(name, "name of a signal")
        self.model = model

    @cached_property
    def codec(self) -> Codec[T]:
        """Encodes and decodes the payload."""
        return Codec(self.model, f"signal {self.name}")


class Update[In, Out]:
    """A named request to a running workflow, which replies or rejects it."""

    def __init__(self, name: str, request: type[In], reply: type[Out]) -> None:
        self.name = check_name(name, "name of an update")
        self.request = request
        self.reply = reply

    @cached_property
    def codec(self) -> Codec[In]:
        """Encodes and decodes the request."""
        return Codec(self.request, f"update {self.name}")

    @cached_property
    def reply_codec(self) -> Codec[Out]:
        """Encodes and decodes the reply."""
        return Codec(self.reply, f"reply to update {self.name}")


@dataclass(frozen=True, slots=True)
class UpdateCall[In, Out]:
    """One update a workflow received: it answers with `reply` or `reject`, once."""

    id: str
    value: In
    update: Update[In, Out] = field(repr=False)

    def reply(self, value: Out) -> Operation[None]:
        """Answer the sender."""
        return Reply(self.update.name, self.id, self.update.reply_codec.encode(value), rejected=False)

    def reject(self, reason: str) -> Operation[None]:
        """Refuse; the sender gets `UpdateRejected` with the reason."""
        return Reply(self.update.name, self.id, check_text(reason, "reason of a rejection"), rejected=True)


@dataclass(frozen=True, slots=True)
class Decision:
    """How a person decided an approval."""

    approved: bool
    by: str
    comment: str | None = None
    form: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: the subject of a verified token, with the name and roles people know it by."""

    subject: str
    username: str | None = None
    roles: tuple[str, ...] = ()


def check_principal(principal: Principal) -> Principal:
    """Return who acts; raises `DefinitionError`, or `TextInvalid` for names that no database keeps."""
    if not isinstance(principal, Principal):
        raise DefinitionError(f"principal must be a Principal(…), got {principal!r:.100}")
    check_name(principal.subject, "subject of a principal", TEXT_CHARACTERS)
    if principal.username is not None:
        check_text(principal.username, "username of a principal")
    return principal
