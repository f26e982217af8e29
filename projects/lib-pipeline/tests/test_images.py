"""Images of members, built by a real buildah into a store of the test's own: what is in them, and when they change."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lib_events.testing import missing


@pytest.fixture
def store(tmp_path):
    """Buildah's store, so that tests side by side do not see one another's images."""
    if shutil.which("buildah") is None:
        missing("buildah is not installed")
    if os.geteuid() != 0:
        missing("these tests look into layers as root")
    configuration = tmp_path / "storage.conf"
    places = "".join(f'{name} = "{tmp_path}/{name}"\n' for name in ("graphroot", "runroot"))
    configuration.write_text(f'[storage]\ndriver = "overlay"\n{places}')
    return {"CONTAINERS_STORAGE_CONF": str(configuration)}


@pytest.fixture
def workspace(program):
    """app-svc is a program; it needs lib-bus, that needs lib-core, and a package from elsewhere."""
    return program


@pytest.fixture
def known_workspace(known_program):
    """The same, where everything but the image is known."""
    return known_program


def image(workspace, store, *arguments):
    """Images alone: what they wait for has tests of its own."""
    run = workspace.pipeline("image", "--untested", "--base", "scratch", *arguments, **store)
    assert run.code == 0, run.err
    return run.report["images"]


def labels(found, store):
    command = ["buildah", "inspect", "--type", "image", found["tags"][0]]
    inspected = json.loads(subprocess.run(command, check=True, env=os.environ | store, capture_output=True).stdout)
    every = inspected["OCIv1"]["config"]["Labels"]
    return {name: text for name, text in every.items() if "uv-pipeline" in name}


def unpack(found, store, folder):
    """Put the files of an image into `folder`; returns its configuration, its files, and its layers' digests."""
    folder.mkdir(exist_ok=True)
    target = folder / "oci"
    subprocess.run(
        ["buildah", "push", "--quiet", found["id"].removeprefix("sha256:"), f"dir:{target}"],
        check=True,
        env=os.environ | store,
        capture_output=True,
    )
    manifest = json.loads((target / "manifest.json").read_text())
    configuration = json.loads((target / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
    files = {}
    for layer in manifest["layers"]:
        with tarfile.open(target / layer["digest"].removeprefix("sha256:")) as archive:
            archive.extractall(folder / "root", filter="tar")
            files |= {member.name: member for member in archive.getmembers()}
    return configuration, files, configuration["rootfs"]["diff_ids"]


def test_an_image_holds_what_is_locked_and_the_members_it_needs(workspace, store, tmp_path):
    [found] = image(workspace, store)
    assert found["member"] == "app-svc"
    configuration, files, _ = unpack(found, store, tmp_path)
    assert {name for name in files if name.count("/") == 2 and ".dist-info" in name and "members" in name} == {
        f"app/members/{name}-0.1.0.dist-info" for name in ("app_svc", "lib_bus", "lib_core")
    }
    assert "app/locked/idna/__init__.py" in files
    assert not [name for name in files if "pytest" in name or "lib_lone" in name], "only what the program needs"
    assert configuration["config"]["User"] == "65532:65532"
    assert configuration["config"]["Entrypoint"] == ["/app/bin/start"]
    assert 'url = "http://127.0.0.1:1/healthz"' in (tmp_path / "root" / "app" / "bin" / "healthy").read_text()
    bill = json.loads((tmp_path / "root" / "app" / "sbom.cdx.json").read_text())
    assert {"idna", "lib-bus", "lib-core"} <= {each["name"] for each in bill["components"]}
    assert {each.uid for name, each in files.items() if name.startswith("data")} == {65532}
    assert {each.uid for name, each in files.items() if name.startswith("app")} == {0}, "nobody writes where it runs"


def test_an_image_starts_its_program_from_code_compiled_beforehand(workspace, store, tmp_path):
    [found] = image(workspace, store)
    unpack(found, store, tmp_path)
    root = tmp_path / "root" / "app"
    search = os.pathsep.join((str(root / "members"), str(root / "locked")))
    done = subprocess.run(
        [sys.executable, "-v", str(root / "bin" / "start")],
        env={"PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "hello 3 xn--br-via.example\n", done.stderr
    assert f"matches {root / 'locked' / 'idna' / '__init__.py'}" in done.stderr, "no need to compile it"


def test_the_same_input_gives_the_same_image_wherever_it_lies(workspace, store, tmp_path):
    [first] = image(workspace, store)
    was, files, _ = unpack(first, store, tmp_path)
    assert {each.mtime for each in files.values()} == {0}
    told = subprocess.run(
        ["grep", "-rl", str(tmp_path.parent), str(tmp_path / "root")], capture_output=True, check=False
    )
    assert told.stdout == b"", "nothing in it tells where it was made"
    subprocess.run(["buildah", "rmi", "--all", "--force"], check=True, env=os.environ | store, capture_output=True)
    [second] = image(workspace.clone("elsewhere", same_cache=True), store)
    assert unpack(second, store, tmp_path.with_name("second"))[0] == was
    assert (second["status"], second["id"]) == ("ran", first["id"])


def test_an_image_is_made_anew_when_what_is_in_it_changes(workspace, store, tmp_path):
    [first] = image(workspace, store)
    workspace.source("lib-lone").write_text(workspace.source("lib-lone").read_text() + "\n# another line\n")
    workspace.test("app-svc").write_text(workspace.test("app-svc").read_text() + "\n# nor are tests in it\n")
    [untouched] = image(workspace, store)
    assert untouched == first | {"status": "cached", "seconds": untouched["seconds"]}
    workspace.source("lib-core").write_text(workspace.source("lib-core").read_text() + "\n# needed by it\n")
    [changed] = image(workspace, store)
    assert changed["status"] == "ran"
    assert changed["id"] != first["id"]
    layers = [unpack(each, store, tmp_path / each["key"])[2] for each in (first, changed)]
    assert layers[0][0] == layers[1][0], "the layer of the locked packages stays"
    assert layers[0][1] != layers[1][1]


def test_all_makes_images_too_and_knows_them_again(known_workspace, store):
    workspace = known_workspace
    first = workspace.pipeline("all", "--base", "scratch", **store)
    assert first.code == 0, first.err
    assert first.members("ran", "image") == {"app-svc"}
    [made] = first.report["images"]
    assert labels(made, store) == {"org.uv-pipeline.key": made["key"], "org.uv-pipeline.tested": "true"}
    again = workspace.pipeline("all", "--base", "scratch", **store)
    assert (again.code, again.report["counts"]["cached"], "ran" in again.report["counts"]) == (0, 18, False)
    assert [each["id"] for each in again.report["images"]] == [made["id"]]
    assert workspace.pipeline(**store).report["images"] == [], "without a word there are none"


def test_an_image_is_never_made_of_what_is_red_unless_it_says_so(known_workspace, store):
    workspace = known_workspace
    tests = workspace.test("lib-core")
    good = tests.read_text()
    tests.write_text(good.replace("== 1", "== 7"))
    red = workspace.pipeline("image", "--base", "scratch", **store)
    assert red.code == 1
    assert red.members("failed") == {"lib-core"}, "a library that is in the image"
    assert red.report["images"] == []
    assert "checks are red" in red.out
    assert not red.members("failed", "image") | red.members("ran", "image")
    [untested] = image(workspace, store)
    assert labels(untested, store)["org.uv-pipeline.tested"] == "false"
    tests.write_text(good)
    [tested] = workspace.pipeline("image", "--base", "scratch", **store).report["images"]
    assert (tested["status"], tested["tested"], untested["tested"]) == ("ran", True, False)
    assert tested["key"] != untested["key"], "the label is a part of it"
    assert labels(tested, store)["org.uv-pipeline.tested"] == "true"


def test_an_image_asks_nothing_of_members_that_are_not_in_it(known_workspace, store):
    workspace = known_workspace
    workspace.test("lib-lone").write_text("def test_wrong():\n    assert False\n")
    run = workspace.pipeline("image", "--base", "scratch", **store)
    assert run.code == 0, run.err
    assert {task["member"] for task in run.report["tasks"]} == {"app-svc", "lib-bus", "lib-core"}
    assert run.members("cached") == {"app-svc", "lib-bus", "lib-core"}, "tests of all that are in it"


def test_only_images_that_a_change_can_reach_are_made(workspace, store):
    workspace.git("commit", "--all", "--quiet", "--message", "A program")
    workspace.source("lib-lone").write_text(workspace.source("lib-lone").read_text() + "\n\n# not in it\n")
    nothing = workspace.pipeline("all", "--affected", "--base", "scratch", **store)
    assert (nothing.code, nothing.report["images"]) == (0, [])
    workspace.source("lib-core").write_text(workspace.source("lib-core").read_text() + "\n\n# in it\n")
    reached = workspace.pipeline("image", "--affected", "--base", "scratch", **store)
    assert reached.members("ran", "image") == {"app-svc"}, reached.err


@contextmanager
def registry(folder, store):
    """A registry with an image of one file; yields its place, where `store` lets buildah go without TLS."""
    (folder / "Containerfile").write_text("FROM scratch\nCOPY Containerfile /made-of\n")
    environment = os.environ | store
    for command in (
        ("buildah", "build", "--quiet", "--tag", "made:1", str(folder)),
        ("buildah", "push", "--quiet", "made:1", f"dir:{folder / 'pushed'}"),
        ("buildah", "rmi", "--all", "--force"),
    ):
        subprocess.run(command, check=True, env=environment, capture_output=True)
    manifest = (folder / "pushed" / "manifest.json").read_bytes()

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self):
            last = self.path.rpartition("/")[2]
            blob = folder / "pushed" / last.removeprefix("sha256:")
            is_manifest = "/manifests/" in self.path
            body = manifest if is_manifest else blob.read_bytes() if "/blobs/" in self.path else b"{}"
            self.send_response(200)
            self.send_header("Content-Type", json.loads(manifest)["mediaType"] if is_manifest else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *_):
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        Thread(target=server.serve_forever).start()
        place = f"127.0.0.1:{server.server_port}"
        store["CONTAINERS_REGISTRIES_CONF"] = str(folder / "registries.conf")
        (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{place}"\ninsecure = true\n')
        try:
            yield place
        finally:
            server.shutdown()


def test_a_base_is_fetched_once_and_its_first_image_is_known_the_second_time(workspace, store, tmp_path):
    (tmp_path / "base").mkdir()
    with registry(tmp_path / "base", store) as place:
        [first] = image(workspace, store, "--base", f"{place}/base:1")
    [again] = image(workspace, store, "--base", f"{place}/base:1")
    assert (first["status"], again["status"], again["id"]) == ("ran", "cached", first["id"])
    assert "made-of" in unpack(first, store, tmp_path / "unpacked")[1], "it stands on the base"


def test_where_nothing_builds_images_all_says_so_and_does_the_rest(known_workspace, store, tmp_path):
    run = known_workspace.pipeline("all", PATH=path_without_builders(tmp_path))
    assert run.code == 0, run.err
    assert "\nimage: left out, no builder (install buildah or docker)\n" in run.out
    assert run.report["left_out"] == "image: left out, no builder (install buildah or docker)"
    assert run.members("cached") == {"app-svc", "lib-bus", "lib-core", "lib-lone"}
    assert run.members("nothing", "image") == {"app-svc"}


def test_a_base_out_of_reach_fails_the_images_and_nothing_else(known_workspace, store):
    run = known_workspace.pipeline("all", "--base", "localhost/there-is-no-such-base:1", **store)
    assert run.code == 1
    assert run.members("failed", "image") == {"app-svc"}
    assert run.members("cached") == run.members("cached", "build") == {"app-svc", "lib-bus", "lib-core", "lib-lone"}
    assert "got no localhost/there-is-no-such-base:1" in run.err
    assert "name another with --base" in run.err


def path_without_builders(folder):
    """A PATH with uv and an interpreter on it, and nothing that builds images."""
    (folder / "programs").mkdir()
    for program in ("uv", "python3.13", "git"):
        (folder / "programs" / program).symlink_to(shutil.which(program))
    return str(folder / "programs")


def test_what_no_image_can_be_made_of_is_refused(workspace, store, tmp_path, subtests):
    manifest = workspace.root / workspace.layout / "app-svc" / "pyproject.toml"
    good = manifest.read_text()
    for said, arguments, change, environment in (
        ("got no [project.scripts]; add one", ("lib-core",), None, {}),
        ("got nobody; correct it", ("nobody",), None, {}),
        ("got neither; install buildah", (), None, {"PATH": path_without_builders(tmp_path)}),
        ("got no localhost/there-is-no-such-base:1", ("--base", "localhost/there-is-no-such-base:1"), None, {}),
        ("must look like module:function, got 'app_svc'", (), ("app_svc:main", "app_svc"), {}),
        ("[tool.pipeline.image] of app-svc must hold", (), ("health =", "healthy ="), {}),
    ):
        with subtests.test(said):
            manifest.write_text(good.replace(*change) if change else good)
            base = () if "--base" in arguments else ("--base", "scratch")
            run = workspace.pipeline("image", *base, *arguments, **store, **environment)
            assert run.code == 2, run.out
            assert said in run.err
            assert "Traceback" not in run.err
