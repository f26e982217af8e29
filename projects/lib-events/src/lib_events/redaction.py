"""Hides secrets in what is logged: one set of rules for every line, wherever it goes."""

import logging
import re
from typing import Any

HIDDEN = "[hidden]"
SECRET_NAME = re.compile(
    r"authorization|cookie|password|passwd|secret|token|api_?key|private|seed|verifier|assertion|dpop", re.IGNORECASE
)
# Each pattern keeps its first group and hides the rest.
SECRET_TEXT = (
    re.compile(r"\b((?:Bearer|Basic|DPoP)\s+)[A-Za-z0-9+/._~=-]{6,}", re.IGNORECASE),
    re.compile(r"()\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*"),  # a JWT, wherever it stands
    re.compile(r"()\bS[UAOCNXP][A-Z2-7]{56}\b"),  # an nkey seed
    re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"),  # a password in a URL
    re.compile(r"([?&](?:code|link|invitation)=)[^\s&\"']+"),  # a secret that a URL carries
    re.compile(
        r"((?:token|password|secret|verifier|assertion|authorization)(?:[\"']?\s*=\s*|[\"']\s*:\s*)[\"']?)[^\s\"'&,;}]+",
        re.IGNORECASE,
    ),
)
EXCEPTIONS = logging.Formatter()
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Hide what looks like a secret in `text`."""
    for pattern in SECRET_TEXT:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


def describe(record: logging.LogRecord) -> str:
    """What `record` says to people, with its exception and what was passed as `extra`, without its secrets."""
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + EXCEPTIONS.formatException(record.exc_info)
    return redact(text) + "".join(f" {name}={value}" for name, value in fields_of(record).items())


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller passed as `extra`, without its secrets."""
    extra = {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}
    return {name: _hide(name, value) for name, value in extra.items()}


def _hide(name: str, value: Any) -> Any:
    if SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, dict):
        return {str(key): _hide(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(name, item) for item in value]
    return value if isinstance(value, int | float | bool | None) else redact(str(value))
