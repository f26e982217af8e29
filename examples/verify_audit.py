"""Checks the hash chain of an exported audit: evs admin audit export | python verify_audit.py."""

import hashlib
import json
import sys
from collections.abc import Iterable


# --8<-- [start:verify]
def verify(lines: Iterable[str], position: int = 0, previous: str = "0" * 64) -> str:
    """Return the head of an unbroken chain; begin after a pruned audit's anchor, if it has one."""
    for line in map(json.loads, lines):
        told = line.pop("hash")
        content = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        hashed = hashlib.sha256((previous + content).encode()).hexdigest()
        if line["position"] != position + 1 or hashed != told:
            raise SystemExit(f"broken at line {position + 1}")
        position, previous = line["position"], hashed
    return f"{position}:{previous}"


# --8<-- [end:verify]
if __name__ == "__main__":
    print(verify(sys.stdin))
