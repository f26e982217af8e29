"""JSON shown as coloured text, cut where it grows beyond what a page should carry."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import htpy as h

LONGEST_SHOWN: Final = 6_000
LONGEST_TEXT: Final = 240
LONGEST_LIST: Final = 100

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
    short = _shortened(value)
    shown = json_text(short)
    if was_cut := len(shown) > longest:
        shown = shown[:longest].rpartition("\n")[0] or shown[:longest]
    return h.div(".json")[
        h.pre(tabindex="0")[h.code[tuple(_coloured(shown))]],
        (was_cut or short != value)
        and h.p(".muted")[
            "Shortened. ",
            whole and h.a(href=whole)["Show all"],
        ],
    ]


def _shortened(value: Any) -> Any:
    """The same value with long texts and lists cut, so that what is around them stays in sight.

    It comes before the JSON is written: an input may be many megabytes, and a live page shows it again and again.
    """
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}… ({len(value):,} characters)"
    if not isinstance(value, dict | list):
        return value
    cut = f"{len(value) - LONGEST_LIST:,} more" if len(value) > LONGEST_LIST else ""
    if isinstance(value, dict):
        shown = {key: _shortened(each) for key, each in islice(value.items(), LONGEST_LIST)}
        return shown | ({"…": cut} if cut else {})
    return [_shortened(each) for each in value[:LONGEST_LIST]] + ([f"… ({cut})"] if cut else [])


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
