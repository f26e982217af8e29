"""Starting on something wrong ends at once with one sentence that says what to change."""

import socket
import subprocess
import sys

import pytest
from pydantic import BaseModel

from lib_auth.events import SessionStarted
from lib_events.contracts.remembered import keep_contracts
from lib_events.database import open_database
from lib_events.event import EventRegistry, EventType
from lib_events.event_log import SCHEMA


class SessionOfANumber(BaseModel):
    session: int
    user: str


def start(tmp_path, *arguments, **environment):
    given = {"PATH": "/usr/bin", "EVS_ADMIN_PASSWORD": "correct horse battery staple"} | environment
    return subprocess.run(
        [sys.executable, "-m", "auth_svc", "--data", str(tmp_path / "evs"), *arguments],
        env=given,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_names_the_option(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = start(tmp_path, "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "choose another with --port or EVS_AUTH_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_data_folder_in_use_says_by_whom(tmp_path, sqlite_url, run_provider):
    async with run_provider(tmp_path, sqlite_url):
        ended = start(tmp_path, "--port", "0", "--database-url", sqlite_url)
    assert ended.returncode == 1
    assert "is in use by process" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"EVS_ADMIN_PASSWORD": "short"}, "EVS_ADMIN_PASSWORD cannot be used"),
        ({"EVS_AUTH_URL": "http://auth.example.org"}, "EVS_AUTH_URL must be https"),
        ({"EVS_AUTH_URL": "https://example.org/auth"}, "EVS_AUTH_URL must be scheme, host and port alone"),
        ({"EVS_AUTH_PORT": "99999"}, "EVS_AUTH_PORT is not right"),
        ({"EVS_AUTH_DATABASE_URL": "mysql://x"}, "database URL must start with sqlite:/// or postgresql://"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, environment, words):
    ended = start(tmp_path, *(() if "EVS_AUTH_PORT" in environment else ("--port", "0")), **environment)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "evs").mkdir()
    (tmp_path / "evs" / "thesis.tex").write_text("mine")
    ended = start(tmp_path, "--port", "0")
    assert ended.returncode == 1
    assert "choose another with --data" in ended.stderr
    assert [entry.name for entry in (tmp_path / "evs").iterdir()] == ["thesis.tex"]


async def test_an_event_type_that_broke_its_contract_is_named(tmp_path, sqlite_url):
    earlier = EventRegistry(EventType(SessionStarted.name, SessionOfANumber))
    database = await open_database(sqlite_url, service="auth-svc", schemas=[SCHEMA])
    await database.transact(keep_contracts, earlier.schemas())
    await database.close()
    ended = start(tmp_path, "--port", "0", "--database-url", sqlite_url)
    assert ended.returncode == 1
    assert "auth-svc: event type 'evs.session.started' must stay compatible with version 1" in ended.stderr
    assert "data.session has changed type" in ended.stderr
    assert "Traceback" not in ended.stderr
