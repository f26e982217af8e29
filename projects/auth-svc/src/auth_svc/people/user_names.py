"""User names: what may be one, how it is kept, and what makes two of them one.

A name is read by people, who must not take one for another: nothing in it is invisible, and its letters are of one
alphabet, as UTS 39 (section 5.2, "highly restrictive") has it: a Cyrillic letter among Latin ones is a forgery.
"""

import re
import unicodedata

import regex

USERNAME = re.compile(r"[^\W_][\w.@+-]{0,63}")
LOOKS = "A user name is 1 to 64 letters, digits or any of ._@+- and begins with a letter or digit."
MIXED = "A user name has letters of one alphabet alone, and none that nobody sees."
INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")
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
    """Fold a name so that those which differ in case and width alone are one."""
    return normal(name).casefold()


def fault(name: str) -> str | None:
    """Say why somebody cannot be called like that, for the person who wants to be; None: they can."""
    if not USERNAME.fullmatch(name):
        return LOOKS
    return None if READABLE.fullmatch(name) and not INVISIBLE.search(name) else MIXED
