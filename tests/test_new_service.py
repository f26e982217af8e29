"""A service that `evs new service` makes is a member as it is: linted, typed, tested, built, started, with no edit."""

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from lib_events.testing import missing, wait_until

ROOT = Path(__file__).parents[1]
TARGETS = ("lint", "types", "test", "build")
RUN_SECONDS = 240
OURS = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_RUN_RECURSION_DEPTH", "PYTHONPATH")


def outside():
    """The environment of somebody who is in no workspace yet."""
    return {name: value for name, value in os.environ.items() if name not in OURS and not name.startswith("EVS_")}


def run(*command, at, **variables):
    return subprocess.run(
        command,
        cwd=at,
        env=outside() | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The files of this workspace at another place, with a new service in it."""
    copy = tmp_path_factory.mktemp("new") / "workspace"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", at=ROOT)
    if listed.returncode != 0:
        missing(f"a clone of the repository, to know what belongs to it ({listed.stderr.strip()})")
    for name in listed.stdout.split("\0")[:-1]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    made = run(sys.executable, "-m", "cli_proj", "new", "service", "order-desk", at=copy)
    if "uv lock must succeed" in made.stderr:
        missing(f"a package registry, to lock the service ({made.stderr})")
    assert made.returncode == 0, made.stderr
    return copy


@pytest.fixture
def pipeline(workspace, tmp_path):
    """Runs the pipeline there, with nothing in its cache; returns its report."""

    def report_of(*arguments, **variables):
        report, cache = tmp_path / "report.json", str(tmp_path / "cache")
        words = ("-m", "lib_pipeline", *arguments, "--report", str(report))
        done = run(sys.executable, *words, at=workspace, PIPELINE_CACHE_DIR=cache, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(report.read_text())

    return report_of


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.pipeline
@pytest.mark.timeout(600)
async def test_a_new_service_is_linted_typed_tested_built_and_started_with_no_edit(workspace, pipeline, tmp_path):
    # With --no-cache nothing is asked of npm.
    tasks = pipeline("--no-cache", *TARGETS, "order-desk")["tasks"]
    assert {task["target"]: task["status"] for task in tasks} == dict.fromkeys(TARGETS, "ran")
    assert list((workspace / "dist").glob("order_desk-*.whl"))
    port = free_port()
    with started(workspace, port, log=tmp_path / "service.log") as is_running:
        await answers(f"http://127.0.0.1:{port}", is_running)


@pytest.mark.pipeline
@pytest.mark.timeout(600)
def test_a_new_service_is_put_into_an_image_with_no_edit(pipeline, tmp_path):
    if shutil.which("buildah") is None or os.geteuid() != 0:
        missing("buildah, and to be root, to build an image in a store of the test's own")
    store = tmp_path / "storage.conf"
    places = "".join(f'{name} = "{tmp_path}/{name}"\n' for name in ("graphroot", "runroot"))
    store.write_text(f'[storage]\ndriver = "overlay"\n{places}')
    arguments = ("image", "order-desk", "--untested", "--base", "scratch", "--builder", "buildah")
    [image] = pipeline(*arguments, CONTAINERS_STORAGE_CONF=str(store))["images"]
    assert (image["member"], image["status"]) == ("order-desk", "ran")


@contextmanager
def started(workspace, port, *, log):
    """The service, started by its name inside the block; yields what raises when it has ended."""
    command = ["uv", "run", "--quiet", "--frozen", "order-desk", "--port", str(port)]
    with log.open("w") as written:
        service = subprocess.Popen(command, cwd=workspace, env=outside(), stderr=written)

    def is_running():
        assert service.poll() is None, log.read_text()

    try:
        yield is_running
    finally:
        service.terminate()
        service.wait(timeout=30)


async def answers(url, is_running):
    """It is well, and lets in nobody without a token."""
    async with httpx.AsyncClient(base_url=url) as http:

        async def is_well():
            is_running()
            try:
                return (await http.get("/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        await wait_until(is_well, timeout=RUN_SECONDS)
        refused = await http.get("/greeting")
        assert refused.status_code == 401
        assert f"{url}/.well-known/oauth-protected-resource" in refused.headers["www-authenticate"]
