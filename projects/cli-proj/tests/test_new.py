"""`evs new`: names, places and what stays behind; that a made service needs no edit is `tests/test_new_service.py`."""

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.new.names import LONGEST, Name
from cli_proj.new.template import SERVICE, WORKFLOW, filled, place_files, place_folder

ROOT = Path(__file__).parents[3]
MANIFEST = """[project]
name = "{name}"
version = "1.0"

[tool.pipeline.image]
health = "http://127.0.0.1:{port}/healthz"
"""
LOCKS = {"UV": "/bin/true"}  # what is locked is not asked here
NAMES = ("a", "orders", "x" * LONGEST, "-".join(["word"] * 8))


@pytest.fixture
def workspace(shell):
    """A folder like a workspace with what a service needs; the second member answers at 8010."""
    (shell.folder / "pyproject.toml").write_text(
        '[tool.uv.workspace]\nmembers = ["projects/*"]\nexclude = ["projects/old-*"]\n'
    )
    (shell.folder / "uv.lock").write_text('[[package]]\nname = "left-pad"\n')
    for name, port in (("lib-auth", 8001), ("lib-events", 8010)):
        (shell.folder / "projects" / name).mkdir(parents=True)
        (shell.folder / "projects" / name / "pyproject.toml").write_text(MANIFEST.format(name=name, port=port))
    return shell.with_variables(**LOCKS)


def everything(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_a_service_is_made_under_its_name_at_the_first_port_that_is_free(workspace):
    answer = workspace.evs("new", "service", "order_desk")
    place = workspace.folder / "projects" / "order-desk"
    assert (answer.code, answer.out) == (0, f"{place}\n")
    assert "uv run order-desk    # http://127.0.0.1:8011" in answer.err
    assert 'health = "http://127.0.0.1:8011/healthz"' in (place / "pyproject.toml").read_text()
    assert (place / "src" / "order_desk" / "py.typed").exists()
    assert (place / "tests" / "test_order_desk.py").exists()
    assert not list(workspace.folder.glob(".evs-new-*"))


def test_a_service_that_cannot_be_locked_stays_and_it_says_so(workspace):
    answer = workspace.with_variables(UV="/bin/false").evs("new", "service", "orders")
    assert answer.code == 1
    assert "uv lock must succeed, got: 1" in answer.err
    assert (workspace.folder / "projects" / "orders" / "README.md").exists()


def test_of_two_who_make_the_same_service_at_once_one_does_and_the_other_is_told(workspace):
    both = [workspace.start("new", "service", "orders") for _ in range(2)]
    said = [process.communicate(timeout=40)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 5], said
    assert not list(workspace.folder.glob(".evs-new-*"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["service", "Orders"], 2, "a name must be at most 40 lower-case letters"),
        (["service", "x" * 41], 2, "a name must be at most 40 lower-case letters"),
        (["service", "../orders"], 2, "a name must be at most 40 lower-case letters"),
        (["service", "class"], 2, "no word of Python's own"),
        (["service", "json"], 2, "none of Python's modules"),
        (["service", "tests"], 2, "none of Python's modules"),
        (["service", "lib-auth"], 5, "it is a member"),
        (["service", "left-pad"], 5, "it is a package in uv.lock"),
        (["service", "httpx"], 5, "the package httpx is installed"),
        (["service", "auth"], 5, "EVS_AUTH_URL already"),
        (["service", "orders", "--into", "elsewhere"], 2, "must be a folder of the workspace"),
        (["service", "orders", "--into", "/"], 2, "must be a folder of the workspace"),
        (["service", "orders", "--into", "."], 2, "where the workspace looks for members (projects/*)"),
        (["service", "old-orders"], 2, "where the workspace looks for members (projects/*)"),
        (["service"], 2, "NAME"),
        (["workflow", "class"], 2, "no word of Python's own"),
        (["workflow", "report", "--into", "elsewhere"], 2, "--into must be a folder"),
        (["workflow", "report", "--into", "/sys"], 2, "a folder must be writable, got /sys"),
    ],
)
def test_what_cannot_be_made_says_why_and_leaves_nothing(workspace, arguments, code, said):
    before = everything(workspace.folder)
    answer = workspace.evs("new", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert everything(workspace.folder) == before


def test_a_service_needs_a_workspace_and_one_with_sign_in(shell):
    nowhere = shell.evs("new", "service", "orders")
    assert (nowhere.code, "must be made inside a uv workspace" in nowhere.err) == (2, True)
    (shell.folder / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["projects/*"]\n')
    without = shell.evs("new", "service", "orders")
    assert (without.code, "without lib-auth and lib-events" in without.err) == (2, True)
    (shell.folder / "pyproject.toml").write_text("[tool.uv.workspace\n")
    broken = shell.evs("new", "service", "orders")
    assert (broken.code, "must be readable as TOML" in broken.err) == (2, True)


def test_a_workflow_is_made_with_its_test_over_nothing_that_is_there(shell):
    answer = shell.evs("new", "workflow", "daily-report")
    assert (answer.code, answer.out) == (0, "daily_report.py\ntest_daily_report.py\n")
    assert "uv run evs up --workflows daily_report.py" in answer.err
    assert "uv run evs run start daily-report -p name=Ada --watch" in answer.err
    (shell.folder / "daily_report.py").unlink()
    again = shell.evs("new", "workflow", "daily-report")
    assert (again.code, "test_daily_report.py, where something is" in again.err) == (5, True)
    assert not (shell.folder / "daily_report.py").exists()


def test_a_made_workflow_passes_its_own_test(shell):
    shell.evs("new", "workflow", "daily-report")
    arguments = ["-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "-n", "0", "test_daily_report.py"]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_is_linted_and_formatted_whatever_its_name(tmp_path, name):
    member = tmp_path / "projects" / name
    member.parent.mkdir()
    place_folder(filled(SERVICE, Name(name), port=8010), member, beside=tmp_path)
    place_files(filled(WORKFLOW, Name(name)), tmp_path)
    sources = f"src = ['{ROOT}/projects/*/src', '{tmp_path}/projects/*/src']"
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run(
            [*ruff, "--config", sources, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    made = "".join(path.read_text() for path in tmp_path.rglob("*.*") if path.is_file())
    assert not [word for word in ("new-service", "new_service", "NEW_SERVICE", "new_workflow") if word in made]


def test_a_disk_that_refuses_half_way_leaves_nothing(tmp_path):
    content = {PurePosixPath("a.txt"): "whole", PurePosixPath("n" * 300): "too long a name for any disk"}
    for place in (
        lambda: place_folder(content, tmp_path / "made", beside=tmp_path),
        lambda: place_files({PurePosixPath("a.txt"): "whole", PurePosixPath("no/folder.txt"): ""}, tmp_path),
    ):
        with pytest.raises(CommandFailed, match="a folder must be writable") as caught:
            place()
        assert caught.value.code == ExitCode.USAGE
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["shop-8010", "a-new-service", "new-service-new-workflow"])
def test_a_name_that_holds_what_is_replaced_stays_as_it_is(name):
    content = filled(SERVICE, Name(name), port=8023)
    manifest = content[PurePosixPath("pyproject.toml")]
    assert f'name = "{name}"' in manifest
    assert "8023" in "".join(content.values())
    assert PurePosixPath("src") / name.replace("-", "_") in {path.parent for path in content}
