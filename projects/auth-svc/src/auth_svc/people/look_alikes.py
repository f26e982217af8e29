"""Names that look alike although each is of one alphabet: all its letters are found in another one, too (UTS 39).

The table says which letters of other alphabets, and of Latin itself, look like one of ASCII; what UTS 39 calls
confusable, as far as it is of alphabets that are full of such letters.
"""

# ruff: noqa: RUF001 - that they look like others is what they are here for
from collections.abc import Iterator

# Each alphabet's letters, and below them what they look like.
ALPHABETS = (
    (
        "АВЕЅІЈКМНОРСТУХѴԌԚԜагеѕіјкорсухѵһӏԁԛԝ",
        "ABESIJKMHOPCTYXVGQWaresijkopcyxvhldqw",
    ),
    (
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγικνορυ",
        "ABEZHIKMNOPTYXayikvopu",
    ),
    (
        "ՕՍՏհոսօցզ",
        "OUShnuogq",
    ),
    (
        "ıɑɡǀꞁ",
        "iagll",
    ),
)
TO_ASCII = str.maketrans(dict(pair for letters, looks in ALPHABETS for pair in zip(letters, looks, strict=True)))
FROM_ASCII = [str.maketrans(dict(zip(looks, letters, strict=True))) for letters, looks in ALPHABETS[:-1]]


def of(name: str) -> Iterator[str]:
    """Yield the names that are whole in other alphabets and look like this one, in ASCII and in capitals, too."""
    plain = name.translate(TO_ASCII)
    if not plain.isascii():
        return  # some letter of it is seen to be of its alphabet
    yield plain
    for written in (plain.lower(), plain.upper()):
        for letters in FROM_ASCII:
            other = written.translate(letters)
            if not any(sign.isascii() and sign.isalpha() for sign in other):
                yield other
