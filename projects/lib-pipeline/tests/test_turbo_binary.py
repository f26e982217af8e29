"""Turborepo is used as we know it or not at all; without it the same things run, and end the same."""

import base64
import hashlib
import http.server
import io
import json
import tarfile
import threading

import pytest

from lib_pipeline.turbo_binary import VERSION, TurboMissing, find_turbo


@pytest.fixture
def registry():
    """An npm registry that has another program under Turborepo's name, well signed."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/bin/turbo")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    tarball = content.getvalue()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            url = f"http://127.0.0.1:{self.server.server_port}/turbo.tgz"
            name = self.path.strip("/").replace("%2f", "/")
            version = {"name": name, "version": VERSION, "dist": {"tarball": url, "integrity": integrity}}
            document = json.dumps(
                {"name": name, "dist-tags": {"latest": VERSION}, "versions": {VERSION: version}}
            ).encode()
            body = tarball if self.path.endswith(".tgz") else document
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_another_program_under_its_name_is_not_used(registry, tmp_path, outside):
    environment = outside(npm_config_registry=registry, npm_config_cache=str(tmp_path / "npm"))
    with pytest.raises(TurboMissing, match=r"must be Turborepo .* got sha512-.* it is not used"):
        find_turbo(tmp_path / "cache", environment, tmp_path)
    assert not list(tmp_path.glob("cache/turbo/*/turbo"))


@pytest.mark.parametrize("broken", [False, True], ids=["green", "red"])
def test_where_npm_reaches_nothing_everything_runs_and_ends_the_same(workspace, broken):
    (workspace.cache / "turbo").unlink()
    if broken:
        workspace.source("lib-core").write_text("def value() -> int:\n    return 2\n")
    run = workspace.pipeline(
        "test", npm_config_registry="http://127.0.0.1:9/", npm_config_cache=str(workspace.cache / "npm")
    )
    assert run.code == int(broken)
    assert "no cache: npm cannot fetch Turborepo" in run.err
    assert run.report["cache"]["local"] == "off"
    assert len(run.members("failed")) == (3 if broken else 0)
    assert run.members("ran") | run.members("failed") == {"app-svc", "lib-bus", "lib-core", "lib-lone"}


def test_turborepo_that_breaks_off_is_done_without(workspace):
    (workspace.cache / "turbo").unlink()
    for folder in ("linux-64", "linux-arm64", "darwin-64", "darwin-arm64"):
        program = workspace.cache / "turbo" / f"{VERSION}-{folder}" / "turbo"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho 'it breaks off' >&2\nexit 1\n")
        program.chmod(0o755)
    run = workspace.pipeline("test", "lib-lone")
    assert (run.code, run.members("ran")) == (0, {"lib-lone"})
    assert "no cache: it breaks off; running everything" in run.err
