"""Each service gets a PostgreSQL schema and role of its own."""

import json
import os
import subprocess
import sys
import uuid

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from lib_events.database import open_database
from lib_events.event_log import SCHEMA
from lib_events.provision import ROLES, ProvisionFailed, _with, provision
from lib_events.tables import events

pytestmark = pytest.mark.postgresql


@pytest.fixture
def roles():
    """Roles belong to the server, not to a database: each test has its own."""
    return {service: f"{role}_{uuid.uuid4().hex[:8]}" for service, role in ROLES.items()}


@pytest_asyncio.fixture
async def empty_database(postgresql_server, roles):
    """The URL of a database of its own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administrator = await asyncpg.connect(postgresql_server)
    await administrator.execute(f"CREATE DATABASE {name}")
    yield postgresql_server.replace("/postgres?", f"/{name}?")
    await administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in (*ROLES.values(), *roles.values()):
        await administrator.execute(f"DROP ROLE IF EXISTS {role}")
    await administrator.close()


async def test_a_service_cannot_read_the_tables_of_another(empty_database, roles, tmp_path):
    urls = await provision(empty_database, data=tmp_path, roles=roles)
    auth = await open_database(urls["auth-svc"], service="auth-svc", schemas=[SCHEMA])
    assert await auth.read(lambda c: c.scalar(select(func.count()).select_from(events))) == 0
    await auth.close()
    stranger = await asyncpg.connect(urls["app-svc"].split("&schema=")[0])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await stranger.fetch(f"SELECT * FROM {roles['auth-svc']}.events")
    await stranger.close()


async def test_doing_it_again_gives_the_same_urls(empty_database, roles, tmp_path):
    first = await provision(empty_database, data=tmp_path, roles=roles)
    assert await provision(empty_database, data=tmp_path, roles=roles) == first
    assert (tmp_path / "secrets" / f"postgresql-{roles['auth-svc']}.secret").stat().st_mode & 0o777 == 0o600


async def test_a_role_that_is_somebody_elses_is_left_alone(empty_database, roles, tmp_path):
    await provision(empty_database, data=tmp_path / "first", roles=roles)
    urls = await provision(empty_database, data=tmp_path / "second", roles=roles)
    assert urls["auth-svc"] == _with(empty_database, roles["auth-svc"], user=None, password="")


def test_the_command_prints_the_urls(empty_database, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "lib_events.provision", "--data", tmp_path / "data"],
        env=os.environ | {"EVS_DATABASE_URL": empty_database},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(result.stdout)) == {"auth-svc", "app-svc"}


async def test_a_server_that_is_away_is_named(tmp_path):
    with pytest.raises(ProvisionFailed, match=r"127\.0\.0\.1 cannot be used"):
        await provision("postgresql://nobody:x@127.0.0.1:1/none", data=tmp_path)
