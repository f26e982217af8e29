"""How quick the product is to start and how much memory it takes: `uv run python benchmarks/product.py`.

Each figure is the median of several rounds on this machine, beside the limit of the targets and beside bare Python,
measured in the same rounds. Memory is the proportional set size (PSS) of all processes, where the kernel tells it.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

EVS = str(Path(sys.executable).with_name("evs"))
ROUNDS = 5
IDLE_SECONDS = 3


def seconds(run: Callable[[], object]) -> float:
    """How long `run` takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def quiet(*command: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure ends the benchmark."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
    environment |= {"EVS_DATA": str(data)} if data else {}
    return subprocess.run(
        command,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=data and data.parent,
    )


def free_port() -> str:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def memory_bytes(pid: int) -> int:
    """The memory of one process, shared pages counted by their share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def one_start(folder: Path) -> tuple[float, int]:
    """Seconds until `evs up` is ready on data that exist, and the idle product's memory."""
    data = folder / "evs"
    ports = ("--gui-port", free_port(), "--auth-port", free_port(), "--app-port", free_port())
    took = seconds(lambda: quiet(EVS, "up", "--detach", *ports, data=data))
    time.sleep(IDLE_SECONDS)
    status = json.loads(quiet(EVS, "status", "-o", "json", data=data).stdout)
    pids = [status["pid"], *(service["pid"] for service in status["services"])]
    memory = sum(memory_bytes(pid) for pid in pids)
    quiet(EVS, "down", data=data)
    return took, memory


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one_start(folder)  # makes the data and fills the caches: the rounds are warm
        python, version, up, memory, demo = [], [], [], [], []
        for _ in range(ROUNDS):
            python.append(seconds(lambda: quiet(sys.executable, "-c", "pass")))
            version.append(seconds(lambda: quiet(EVS, "--version")))
            took, held = one_start(folder)
            up.append(took)
            memory.append(held / 1e6)
            demo.append(seconds(lambda: quiet(EVS, "demo", data=folder / "demo-data")))
        rows = (
            ("bare Python", python, "s", None),
            ("evs --version", version, "s", 0.150),
            ("evs up, warm, to ready", up, "s", 5),
            ("idle product, all processes", memory, "MB", 400),
            ("evs demo, warm", demo, "s", 60),
        )
        print(f"{'median of ' + str(ROUNDS):<30}{'measured':>12}{'limit':>10}{'of it':>8}")
        for title, values, unit, limit in rows:
            median = statistics.median(values)
            share = f"{median / limit:7.0%}" if limit else ""
            print(f"{title:<30}{median:>9.3f} {unit:<2}{limit or '':>10}{share:>8}")


if __name__ == "__main__":
    main()
