"""JSON Pointer (RFC 6901): where in a document something is."""

import re
from typing import Any

PATTERN = r"^(/([^~\x00/]|~[01])*)+$"
INDEX = re.compile(r"0|[1-9][0-9]{0,9}")


def find_pointer(document: Any, pointer: str) -> Any:
    """Return the value at `pointer`, or None where there is none."""
    found = document
    for part in pointer.split("/")[1:]:
        # RFC 6901 section 4: ~1 first, so that ~01 becomes ~1.
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
