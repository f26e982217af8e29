"""User names: what may be one, how it is kept, and what makes two of them one.

A name is read by people, who must not take one for another: nothing in it is invisible, and its letters are of one
alphabet, as UTS 39 (section 5.2, "highly restrictive") has it: a Cyrillic letter among Latin ones is a forgery. Marks
belong to the letters of most scripts, so a name has those that its script has, within the bounds of section 5.4.
"""

import unicodedata
from collections.abc import Iterator

import regex

from auth_svc.people import look_alikes

LONGEST = 64
LETTER = r"[\p{L}\p{N}][\p{Mn}\p{Mc}]*"  # with its marks
USERNAME = regex.compile(rf"{LETTER}({LETTER}|[_.@+-])*")
UNFIT = regex.compile(r"[^\p{L}\p{N}\p{Mn}\p{Mc}_.@+-]+")
LOOKS = "A user name is 1 to 64 letters, digits or any of ._@+- and begins with a letter or digit."
MIXED = "A user name has letters of one alphabet alone, and none that nobody sees."
MARKED = "A user name has no more marks at a letter than its script writes, and none that cross it out."
INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")
# RFC 5892, appendix A.1 and A.2: after a virama they say how it is written, as the Sri of Sri Lanka is.
JOINER = regex.compile(r"(?<=\p{Canonical_Combining_Class=Virama})[\u200c\u200d]")
# UTS 39, section 5.4; what crosses a letter out makes another letter of it, and a dot above an i is not seen.
TOO_MARKED = regex.compile(r"(\p{Mn})\1|\p{Mn}{5}|\p{Soft_Dotted}\p{Mn}*\u0307|[\u0334-\u0338]")
# UAX 31, table 5: what people write today. Characters that several scripts share belong to each of them.
SCRIPTS = (
    *("Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek", "Gujarati"),
    *("Gurmukhi", "Hebrew", "Kannada", "Khmer", "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil"),
    *("Telugu", "Thaana", "Thai", "Tibetan"),
)
# UTS 39, section 5.2: these are written together. Latin alone is in each of them.
TOGETHER = (("Latin", "Han", "Hiragana", "Katakana"), ("Latin", "Han", "Bopomofo"), ("Latin", "Han", "Hangul"))
ALPHABETS = (*((script,) for script in SCRIPTS), *TOGETHER)


def _written_in(scripts: tuple[str, ...]) -> str:
    return f"[{''.join(rf'\p{{Script_Extensions={script}}}' for script in ('Common', 'Inherited', *scripts))}]*"


READABLE = regex.compile("|".join(map(_written_in, ALPHABETS)))


def normal(typed: str) -> str:
    """Return a name as it is kept: without blanks around it, its letters composed and of normal width."""
    return unicodedata.normalize("NFKC", typed.strip())


def folded(name: str) -> str:
    """Fold a name so that those which differ in case, width and joiners alone are one.

    Folding the case takes letters apart, and what it leaves may go together (Unicode, section 3.13, D146).
    """
    plain = JOINER.sub("", normal(name)).casefold()
    return unicodedata.normalize("NFKC", plain).casefold()


def namesakes(name: str) -> frozenset[str]:
    """Return the folded names of which nobody else may have any: its own, and those that look like it."""
    return frozenset(map(folded, (name, *look_alikes.of(JOINER.sub("", normal(name))))))


def likened(wanted: str) -> str | None:
    """Return what somebody can be called who is called `wanted` elsewhere; None where that leaves nothing."""
    name = UNFIT.sub(".", normal(wanted)).strip("._@+-")[:LONGEST]
    return name if fault(name) is None else None


def fault(name: str) -> str | None:
    """Say why somebody cannot be called like that, for the person who wants to be; None: they can."""
    return next(_faults(JOINER.sub("", name) if len(name) <= LONGEST else ""), None)


def _faults(plain: str) -> Iterator[str]:
    if INVISIBLE.search(plain):
        yield MIXED
    if not USERNAME.fullmatch(plain):
        yield LOOKS
    if not READABLE.fullmatch(plain):
        yield MIXED
    if TOO_MARKED.search(unicodedata.normalize("NFD", plain)):
        yield MARKED
