"""Which packages Python files import, as far as their text tells. A type checker may see members that nobody declared:
its configuration can name their folders. Their files belong into its key, too.
"""

import re
from collections.abc import Iterable
from pathlib import Path

STATEMENT = re.compile(rb"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)|import[ \t]+([^#\n]+))", re.MULTILINE)
FIRST_NAME = re.compile(r"[A-Za-z_]\w*")


def imported_packages(files: Iterable[Path]) -> frozenset[str]:
    """The top-level names in the import statements of files, those in texts and comments included."""
    found: set[str] = set()
    for file in files:
        for origin, names in STATEMENT.findall(file.read_bytes()):
            if origin:
                found.add(origin.decode())
            else:
                parts = names.decode(errors="replace").split(",")
                found.update(name[0] for part in parts if (name := FIRST_NAME.search(part)))
    return frozenset(found)
