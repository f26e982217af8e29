"""Fixtures every member's tests share: databases, brokers, bounded waiting."""

import gc
import importlib.util
import itertools
import os
import signal
import sqlite3
import ssl
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from zlib import crc32

import pytest
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.util import LRUCache

from lib_events import memory
from lib_events.adapters.sqlite import SqliteDatabase
from lib_events.database import Schema
from lib_events.testing.copies import Copies
from lib_events.testing.drawn import EVERYTHING, SEED, Draw

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["lib_events.testing.fixtures"]

# A process starts one, for every test in it that asks.
COSTLY = frozenset(("product", "short_lived", "browser", "chromium", "authorities", "make_workspace"))
# Of the tests on both databases a run of all members has a third on PostgreSQL, others each time. A library alone has
# all: what is about databases are the libraries' tests.
USERS_OF_DATABASES = ("app-svc", "auth-svc")
PART_ON_POSTGRESQL = 3
COMPILED_STATEMENTS = 2_000
TESTS_PER_WORKER = 2
SETTLE_SECONDS = 10.0

settled_at = [0.0]

memory.load()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each core: half of the time a test waits for another process. Fewer for a handful of tests: each worker
    would load everything to run next to nothing."""
    places = [config.invocation_params.dir / each.partition("::")[0] for each in config.args]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("test_*.py"))]
    tests = sum(file.read_text(encoding="utf-8").count("def test_") for file in files)
    return max(1, min((os.cpu_count() or 1) * 2, tests // TESTS_PER_WORKER))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin the workers' shares with what is long, then with what is costly to start: who is done early steals from
    their ends, and nobody is left alone with a long test."""
    _deselect(config, items)
    shares = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    bound = float(config.getini("timeout"))
    long = {item: item.path for item in items if _own_bound(item) > bound}
    costly = {item: item.path.parent for item in items if item not in long and COSTLY.intersection(_fixtures(item))}
    groups = [list(group) for first in (long, costly) for _, group in itertools.groupby(first, first.__getitem__)]
    others = iter([item for item in items if item not in long and item not in costly])
    total, items[:] = len(items), []
    for share in range(shares):
        end = len(items) + (total - len(items)) // (shares - share)
        items += itertools.chain(*groups[share::shares])
        items += itertools.islice(others, max(0, end - len(items)))
    items += others


def _deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is drawn another time, or each test but once; whoever names files gets all that is in them."""
    if EVERYTHING or not all((config.invocation_params.dir / each).is_dir() for each in config.args):
        return
    kept = _each_once(items) if os.environ.get("EVS_TEST_EACH_ONCE") else _drawn(items, config.stash[SEED])
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _drawn(items: list[pytest.Item], seed: int) -> set[pytest.Item]:
    """All but most of what is tested on both databases and now on PostgreSQL."""
    is_of_all = len({_member(item) for item in items}) > 1
    second = [item for item in items if _is_second_time(item) and (is_of_all or _member(item) in USERS_OF_DATABASES)]
    return {*items} - {*second} | {*Draw("on PostgreSQL", seed).some(second, len(second) // PART_ON_POSTGRESQL)}


def _each_once(items: list[pytest.Item]) -> set[pytest.Item]:
    """Of each function one test: on PostgreSQL where it is on both databases, otherwise any, the same each time."""
    tests = defaultdict(list)
    for item in items:
        tests[item.path, item.parent, getattr(item, "originalname", None) or item.name].append(item)
    return {min(of, key=lambda item: (not _is_second_time(item), crc32(item.nodeid.encode()))) for of in tests.values()}


def _member(item: pytest.Item) -> str:
    """Whose test it is; a test of the whole is nobody's."""
    parts = item.path.parts
    return parts[parts.index("projects") + 1] if "projects" in parts else ""


def _is_second_time(item: pytest.Item) -> bool:
    """Whether a test on PostgreSQL is there on SQLite, too."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "postgresql" in callspec.params.values()


def _own_bound(item: pytest.Item) -> float:
    """The seconds that a test may take by its own mark: whoever has more than others needs more."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not look at it, not even once."""
    memory.settle()


@pytest.fixture(scope="module", autouse=True)
def settled_memory() -> Iterator[None]:
    """What a module has left behind stays, too: a look at all of it takes longer than a transaction may."""
    yield
    if time.monotonic() - settled_at[-1] > SETTLE_SECONDS:
        gc.collect()
        memory.settle()
        settled_at.append(time.monotonic())


@pytest.fixture(scope="session", autouse=True)
def statements_compiled_once() -> Iterator[None]:
    """Let databases of a kind share what is compiled: a test opens its own, and would compile every statement anew."""
    dialects: dict[type[Dialect], Dialect] = {}
    compiled: LRUCache[object, object] = LRUCache(COMPILED_STATEMENTS)

    def share(connection: Connection) -> None:
        connection.dialect = dialects.setdefault(type(connection.dialect), connection.dialect)
        connection.execution_options(compiled_cache=compiled)

    event.listen(Engine, "engine_connect", share)
    yield
    event.remove(Engine, "engine_connect", share)


@pytest.fixture(scope="session", autouse=True)
def authorities_read_once() -> Iterator[None]:
    """Let HTTP clients that believe the same authorities share them: each would read some hundred of them anew."""
    if importlib.util.find_spec("httpx") is None:  # a member runs without its neighbours, and without what they need
        yield
        return
    from httpx._transports import default as transports  # noqa: PLC0415 - only where it is installed

    create, contexts = transports.create_ssl_context, {}

    def create_or_share(**asked: object) -> ssl.SSLContext:
        if asked["verify"] is not True or asked["cert"] is not None:
            return create(**asked)
        kind = asked["trust_env"] and tuple(map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))
        if kind not in contexts:
            contexts[kind] = create(**asked)
        return contexts[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transports, "create_ssl_context", create_or_share)
        yield


@pytest.fixture(scope="session")
def postgresql_copies(postgresql_server: str) -> Iterator[Copies | None]:
    """Copies of databases whose tables are made once; None on a server that is not ours."""
    if "EVS_TEST_POSTGRES_URL" in os.environ:
        yield None
        return
    from lib_events.adapters.postgresql import PostgresqlDatabase  # noqa: PLC0415 - only where a test asks for it

    open_as_it_is = PostgresqlDatabase.open

    async def migrate(url: str, schemas: Sequence[Schema]) -> None:
        await (await open_as_it_is(url, service="app-svc", schemas=schemas)).close()

    copies = Copies(postgresql_server, migrate)

    async def open_copy(url: str, *, service: str, schemas: Sequence[Schema]) -> PostgresqlDatabase:
        await copies.make(url, schemas)
        return await open_as_it_is(url, service=service, schemas=schemas)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresqlDatabase, "open", open_copy)
        yield copies


@pytest.fixture
def postgresql_url(
    postgresql_url: str, postgresql_copies: Copies | None, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of an empty PostgreSQL schema: where the server is ours, in a database that is made when it is opened."""
    if postgresql_copies is None or request.node.get_closest_marker("opened_elsewhere"):
        yield postgresql_url
        return
    url = postgresql_copies.new_url()
    yield url
    postgresql_copies.leave(url)


@pytest.fixture(scope="session", autouse=True)
def files_migrated_once() -> Iterator[None]:
    """Let new SQLite files begin as copies of the first with their tables: a test would migrate its own anew."""
    migrate = SqliteDatabase._migrate
    migrated: dict[tuple[Schema, ...], sqlite3.Connection] = {}

    def migrate_or_copy(database: SqliteDatabase, schemas: Sequence[Schema]) -> None:
        raw, kind = database._raw, tuple(schemas)
        is_empty = raw.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if is_empty and kind in migrated:
            migrated[kind].backup(raw)
            return
        migrate(database, schemas)
        if is_empty:
            migrated[kind] = sqlite3.connect(":memory:", check_same_thread=False)
            raw.backup(migrated[kind])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteDatabase, "_migrate", migrate_or_copy)
        yield
    for copied in migrated.values():
        copied.close()
