"""JSON shown as coloured text, cut where it grows beyond what a page should carry."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import htpy as h

LONGEST_SHOWN: Final = 6_000
LONGEST_TEXT: Final = 240

TOKEN: Final = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*"(?=\s*:))'
    r'|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<word>\b(?:true|false|null)\b)"
)
CLASSES: Final = {"key": "jk", "string": "js", "number": "jn", "word": "jw"}


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def json_view(value: Any, *, whole: str | None = None, longest: int = LONGEST_SHOWN) -> h.Element:
    """A block of JSON; `whole` is the address of everything, offered when the block had to be cut."""
    text = json_text(value)
    shown = text if len(text) <= longest else json_text(_shortened(value))
    if len(shown) > longest:
        shown = shown[:longest].rpartition("\n")[0] or shown[:longest]
    cut = len(text) - len(shown)
    return h.div(".json")[
        h.pre(tabindex="0")[h.code[tuple(_coloured(shown))]],
        cut > 0
        and h.p(".muted")[
            f"… {cut:,} more characters. ",
            whole and h.a(href=whole)["Show all"],
        ],
    ]


def _shortened(value: Any) -> Any:
    """The same value with its long texts cut, so that what is around them stays in sight."""
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:LONGEST_TEXT] + "…"
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return value


def _coloured(text: str) -> Iterator[h.Node]:
    position = 0
    for match in TOKEN.finditer(text):
        if match.start() > position:
            yield text[position : match.start()]
        yield h.i(class_=CLASSES[str(match.lastgroup)])[match.group()]
        position = match.end()
    yield text[position:]


def one_line(value: Any, *, longest: int = 80) -> str:
    """A value in a few words, for a row of a table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
