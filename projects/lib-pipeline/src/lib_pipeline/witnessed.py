"""What a test run has read, as its own Python processes tell: a key that misses a file of the workspace is found here,
and not when something broken has passed. Other programs, and Python in isolated mode, tell nothing.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

WITNESS = Path(__file__).parent / "witness"
COMPILED = re.compile(r"(.*/)?__pycache__/([^/]+?)\.[^/]*\.pyc(\.\d+)?$")
SHOWN = 3


def asked_to_witness(environment: Mapping[str, str], *, root: Path, notes: Path) -> dict[str, str]:
    """The environment in which Python processes note what they open below the root."""
    paths = [str(WITNESS), *filter(None, [environment.get("PYTHONPATH")])]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(paths),
        "PIPELINE_WITNESS_ROOT": f"{root}{os.sep}",
        "PIPELINE_WITNESS_NOTES": str(notes),
    }


def read_beyond(notes: Path, beyond: Collection[str]) -> list[str]:
    """Which of the files that a key does not cover were opened all the same."""
    if not beyond or not notes.is_file():
        return []
    opened = {_source(line) for line in notes.read_text(encoding="utf-8", errors="replace").splitlines()}
    return sorted(opened.intersection(beyond))


def complaint(paths: Collection[str]) -> str:
    """What to tell somebody whose tests read more than their key covers."""
    shown = ", ".join(sorted(paths)[:SHOWN]) + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
    return (
        f"tests must read nothing that their key does not cover, got {shown}; declare the member that it belongs to "
        "as a dependency or in a group, or take it out of `apart`"
    )


def _source(path: str) -> str:
    """The file that a compiled one stands for."""
    found = COMPILED.match(path)
    return f"{found[1] or ''}{found[2]}.py" if found else path
