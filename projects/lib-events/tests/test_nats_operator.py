"""What the operator of a cluster is given: accounts to include, streams made with the keeper's key."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lib_events.nats.broker import Broker
from lib_events.nats_operator import main
from lib_events.nats_server import server_binary
from lib_events.testing import wait_until
from lib_events.testing.cluster import _write_certificates

# nats-py leaves an attempt to connect that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "run-it.md"


def test_the_accounts_hold_public_keys_only_and_stay_the_same(tmp_path, capsys):
    printed = []
    for _ in range(2):
        main(["accounts", "--data", str(tmp_path / "keys")])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert set(json.loads(printed[0])["accounts"]) == {"keeper", "auth-svc", "app-svc"}
    for name in ("keeper", "auth-svc", "app-svc"):
        seed_file = tmp_path / "keys" / "secrets" / f"nats-{name}.nk"
        assert seed_file.stat().st_mode & 0o777 == 0o600
        assert seed_file.read_text() not in printed[0]


def test_the_configuration_in_the_guide_is_accepted_by_the_server(tmp_path, capsys):
    if not GUIDE.exists():
        pytest.skip("needs the documentation: run it in the whole workspace")
    _write_certificates(tmp_path)
    main(["accounts", "--data", str(tmp_path / "keys")])
    (tmp_path / "accounts.conf").write_text(capsys.readouterr().out)
    (block,) = re.findall(r'```text title="nats.conf"\n(.*?)```', GUIDE.read_text(), re.DOTALL)
    (tmp_path / "nats.conf").write_text(block)
    check = subprocess.run(
        [server_binary(), "-t", "-c", "nats.conf"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr


async def test_the_keeper_makes_the_streams_of_a_cluster_and_a_service_says_that_it_may_not(nats_cluster, caplog):
    command = [sys.executable, "-m", "lib_events.nats_operator", "streams", "--data", nats_cluster.folder]
    environment = {
        "EVS_NATS_URL": nats_cluster.url,
        "EVS_NATS_CA": str(nats_cluster.ca),
        "EVS_NATS_REPLICAS": "1",
    }
    made = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert made.stdout.split() == ["events-auth-svc", "events-app-svc"]
    async with Broker(nats_cluster.access("app-svc"), service="app-svc") as broker:
        await broker.wait_connected()
        info = await wait_until(lambda: broker._jetstream().stream_info("events-app-svc"))
        assert info.config.num_replicas == 1
        await broker.ensure_stream()
    assert "the stream events-app-svc keeps its settings" in caplog.text


def test_without_a_cluster_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("EVS_NATS_URL", raising=False)
    with pytest.raises(SystemExit, match="EVS_NATS_URL must name the cluster"):
        main(["streams", "--data", str(tmp_path)])
    monkeypatch.setenv("EVS_NATS_URL", "nats://127.0.0.1:1")
    with pytest.raises(SystemExit, match="must take the keeper's key"):
        main(["streams", "--data", str(tmp_path)])
