"""Images by Docker, on an engine that is there: what its builders make of the same folder as buildah does."""

import json
import os
import shutil
import subprocess
import uuid

import pytest

from lib_pipeline.image_builder import Docker, find_builder


def docker(*arguments):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def prefix():
    """What stands before the names of a test's images, which are gone after it."""
    if shutil.which("docker") is None:
        pytest.skip("no Docker here: its images are tested where an engine runs, as in .ci/images")
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no Docker engine runs here: start one, or let .ci/images do it")
    name = f"pipeline-test-{uuid.uuid4().hex[:12]}/"
    yield name
    found = docker("image", "ls", "--quiet", "--no-trunc", f"{name}*").split()
    if found:
        docker("image", "rm", "--force", *dict.fromkeys(found))


@pytest.fixture
def image(program, prefix):
    """Makes the one image of a workspace, untested, with nothing below it."""

    def make(*arguments, **environment):
        words = ("image", "--untested", "--builder", "docker", "--base", "scratch", "--prefix", prefix, *arguments)
        engine = {name: os.environ[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG") if name in os.environ}
        run = program.pipeline(*words, **engine, **environment)
        assert run.code == 0, run.err
        return run.report["images"][0]

    return make


def inspected(image):
    return json.loads(docker("image", "inspect", image["tags"][0]))[0]


def test_docker_makes_an_image_that_starts_asks_and_says_what_it_is(image, prefix):
    made = image()
    found = inspected(made)
    assert found["Id"] == made["id"]
    configuration = found["Config"]
    assert (configuration["User"], configuration["Entrypoint"]) == ("65532:65532", ["/app/bin/start"])
    assert configuration["Healthcheck"]["Test"] == ["CMD", "/app/bin/healthy"], "Docker's format has what OCI's has not"
    assert configuration["Labels"] == {"org.uv-pipeline.key": made["key"], "org.uv-pipeline.tested": "false"}
    assert inspected({"tags": [f"{prefix}app-svc:latest"]})["Id"] == made["id"]


def test_docker_knows_an_image_again_and_keeps_the_layer_of_what_is_locked(image, program):
    first = image()
    assert image() == first | {"status": "cached", "seconds": 0.0}
    program.source("lib-core").write_text(program.source("lib-core").read_text() + "\n# needed by it\n")
    changed = image()
    assert (changed["status"], changed["key"] == first["key"]) == ("ran", False)
    before, after = (inspected(each)["RootFS"]["Layers"] for each in (first, changed))
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_lost_latest_is_given_back_to_an_image_that_is_known(image, prefix):
    made = image()
    docker("image", "rm", f"{prefix}app-svc:latest")
    assert image()["status"] == "cached"
    assert inspected({"tags": [f"{prefix}app-svc:latest"]})["Id"] == made["id"]


def test_a_base_that_no_registry_has_is_told(program, prefix):
    run = program.pipeline("image", "--untested", "--builder", "docker", "--base", f"localhost:1/{prefix}none:1")
    assert run.code == 2
    assert f"got no localhost:1/{prefix}none:1" in run.err


def test_what_the_client_can_do_decides_about_buildkit(prefix):
    found = find_builder("docker", os.environ)
    assert isinstance(found, Docker)
    client = docker("version", "--format", "{{.Client.Version}}")
    plugin = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0
    assert found.has_buildkit == (plugin or int(client.partition(".")[0]) < 23)
