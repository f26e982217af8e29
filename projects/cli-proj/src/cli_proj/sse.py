"""Reads a stream of server-sent events (WHATWG HTML, section 9.2.6)."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream."""

    id: str | None
    type: str
    data: str


async def read_events(lines: AsyncIterable[str]) -> AsyncIterator[ServerSentEvent | None]:
    """Yield each event of `lines`; None for a comment, which says that the stream is alive."""
    last_id: str | None = None
    type_, data = "message", list[str]()
    async for line in lines:
        if line == "":
            if data:
                yield ServerSentEvent(last_id, type_, "\n".join(data))
            type_, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                yield None
            case "data":
                data.append(value)
            case "event":
                type_ = value
            case "id" if "\0" not in value:
                last_id = value
