"""The bundled broker: it keeps its store, its keys and its streams, and never outlives its parent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from lib_events import nats_server as nats_server_module
from lib_events.nats.broker import Broker, Message
from lib_events.nats_server import NatsServer, NatsServerFailed
from lib_events.parent_watch import supervised
from lib_events.testing import wait_until

SERVE = [sys.executable, "-m", "lib_events.nats_server", "--data"]
PARENT = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); sys.stdin.read()"


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def nothing(_error):
    pass


@asynccontextmanager
async def client_of(server, service, **options):
    client = await nats.connect(
        server.url,
        nkeys_seed=str(server.credentials(service)),
        inbox_prefix=f"_INBOX_{service}",
        error_cb=options.pop("error_cb", nothing),
        **options,
    )
    try:
        yield client
    finally:
        await client.close()


async def test_a_start_that_is_given_up_leaves_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(NatsServer, "keep_streams", lambda _server: asyncio.Event().wait())
    server = NatsServer(tmp_path / "nats")
    starting = asyncio.create_task(server.start())
    pid = await wait_until(lambda: server.pid)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert not alive(pid)


async def test_a_server_ends_also_where_its_streams_are_given_up_slowly(tmp_path, monkeypatch):
    let_go = asyncio.Event()

    async def stubborn(_server):
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    async with NatsServer(tmp_path / "nats") as server:
        pid = server.pid
        monkeypatch.setattr(NatsServer, "keep_streams", stubborn)
        monkeypatch.setattr(nats_server_module, "KEEP_SECONDS", 0.0)
        monkeypatch.setattr(nats_server_module._Supervision, "cleanup_seconds", 0.1)
        os.kill(pid, signal.SIGKILL)  # so that the next life keeps streams as above
        again = await wait_until(lambda: server.pid if server.pid != pid else None)
    assert not alive(again)
    let_go.set()


async def test_the_store_survives_a_crash_and_the_server_comes_back_on_its_port(fresh_nats_server):
    seed_file = fresh_nats_server.credentials("app-svc")
    async with Broker(fresh_nats_server.url, service="app-svc", seed_file=seed_file) as broker:
        await broker.wait_connected()
        await broker.ensure_stream()
        await broker.publish_batch([Message("events.app-svc.a", "1.1", b"1", "text/plain")])
        os.kill(fresh_nats_server.pid, signal.SIGKILL)
        await wait_until(lambda: broker.connected and broker.connections == 2)
        assert (await broker.stream_state()).last_message_id == "1.1"


async def test_keys_and_configuration_are_for_the_owner_only(fresh_nats_server):
    assert fresh_nats_server.credentials("app-svc").stat().st_mode & 0o777 == 0o600
    assert (fresh_nats_server.folder / "server.conf").stat().st_mode & 0o777 == 0o600
    assert "SU" not in (fresh_nats_server.folder / "server.conf").read_text().split('"')


async def test_the_same_keys_serve_the_next_start(tmp_path):
    async with NatsServer(tmp_path) as server:
        before = server.credentials("app-svc").read_text()
    async with NatsServer(tmp_path) as server, client_of(server, "app-svc") as client:
        await client.flush()
        assert server.credentials("app-svc").read_text() == before


async def test_a_taken_port_is_told(tmp_path, fresh_nats_server, monkeypatch):
    monkeypatch.setattr("lib_events.nats_server.START_SECONDS", 1.0)
    with pytest.raises(NatsServerFailed, match="is the port taken"):
        await NatsServer(tmp_path, port=fresh_nats_server.port).start()


def serve(tmp_path, *prefix):
    return subprocess.Popen(
        [*prefix, *SERVE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=supervised(),
    )


async def test_a_broker_that_hangs_is_killed_when_it_is_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(nats_server_module, "STOP_SECONDS", 1.5)
    server = NatsServer(tmp_path)
    await server.start()
    os.kill(server.pid, signal.SIGSTOP)
    pid = server.pid
    await server.stop()
    assert not alive(pid)


@pytest.mark.parametrize("end", ["kill", "terminate", "close"])
async def test_no_broker_is_left_behind_however_the_supervisor_ends(tmp_path, end):
    with serve(tmp_path) as supervisor:
        pid = json.loads(supervisor.stdout.readline())["pid"]
        assert alive(pid)
        {"kill": supervisor.kill, "terminate": supervisor.terminate, "close": supervisor.stdin.close}[end]()
        await wait_until(lambda: not alive(pid))
        code = await asyncio.to_thread(supervisor.wait, 10)
    assert code == (-signal.SIGKILL if end == "kill" else 0)


async def test_no_broker_is_left_behind_when_the_supervisors_parent_is_killed(tmp_path):
    with serve(tmp_path, sys.executable, "-c", PARENT) as parent:
        pid = json.loads(parent.stdout.readline())["pid"]
        parent.kill()
        await wait_until(lambda: not alive(pid))


def test_an_unsupervised_server_does_not_need_a_standard_input(tmp_path):
    with subprocess.Popen(
        [*SERVE, str(tmp_path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert json.loads(process.stdout.readline())["event"] == "ready"
        assert process.poll() is None
        process.terminate()


async def test_the_server_all_tests_of_a_process_share_answers(nats_server):
    async with client_of(nats_server, "app-svc") as client:
        assert (await client.jetstream().stream_info("events-app-svc")).config.max_age > 0
