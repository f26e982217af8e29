"""openid-client from npm, the OpenID Foundation's certified relying party, unmodified, against a real server."""

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lib_events.testing.npm import NODE, node_modules

FOREIGN = Path(__file__).parent / "foreign"
SCRIPT = "openid_client.mjs"
CALLBACK = "http://127.0.0.1:8000/callback"
CHECKS = 9


@pytest.fixture
def openid_client(tmp_path):
    """Starts the script, with what it needs from npm beside it."""
    shutil.copy(FOREIGN / SCRIPT, tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules(FOREIGN))

    def start(*arguments):
        command = [str(NODE), str(tmp_path / SCRIPT), *arguments]
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
