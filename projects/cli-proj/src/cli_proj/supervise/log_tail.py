"""The last words of a service, from its log, made readable."""

import json
from pathlib import Path
from typing import Any

TAIL_BYTES = 16_384


def last_words(log: Path, *, since: int = 0, lines: int = 8) -> list[str]:
    """Return the last `lines` of `log` written after the byte `since`."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [_readable(line) for line in text.splitlines() if line.strip()][-lines:]


def _readable(line: str) -> str:
    """A structured line as `level: message`; any other line as it is."""
    try:
        record: dict[str, Any] = json.loads(line)
        text = f"{record['level']}: {record['message']}"
    except (ValueError, KeyError, TypeError):
        return line
    exception = str(record.get("exception") or "").strip().splitlines()
    return f"{text} ({exception[-1]})" if exception else text
