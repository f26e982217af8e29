"""How many of a thousand races of twenty had exactly one winner: the races of `test_races.py`, many times over.

    uv run benchmarks/races.py [--repeats 1000] [--only for_a_code,…] [--database postgresql://…]

Each race runs in this process against a whole AuthService (SQLite, FULL, unless told otherwise): twenty requests at
once for one code, refresh token (without and with a grace), device code, device, consent or pushed request.
"""

import argparse
import asyncio
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parents[1] / "projects" / "auth-svc" / "tests"


def load(name: str) -> ModuleType:
    """A module of the tests: the races are written once."""
    spec = importlib.util.spec_from_file_location(f"tests_{name}", TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def main() -> int:
    """Run each race and print how many were as they must be; the exit code says whether all were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", default="")
    parser.add_argument("--database", default="")
    options = parser.parse_args()
    conftest, races = load("conftest"), load("test_races")
    wanted = [(race, race in races.STRICT) for race in (*races.RACES, *races.STRICT)]
    failed = False
    for race, strict in wanted:
        if options.only and race.__name__ not in options.only.split(","):
            continue
        settings = {"refresh_grace_seconds": 0} if strict else {}
        with tempfile.TemporaryDirectory() as folder:
            url = options.database or f"sqlite:///{folder}/races.db"
            async with conftest.running_provider(Path(folder), url, **settings) as provider:
                began = time.perf_counter()
                won = (await races.run(provider, [race], options.repeats))[race.__name__]
        seconds = time.perf_counter() - began
        print(f"{race.__name__:24} {won} of {options.repeats} had exactly one winner ({seconds:.0f} s)", flush=True)
        failed = failed or won != options.repeats
    return int(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
