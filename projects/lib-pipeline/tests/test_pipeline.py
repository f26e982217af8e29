"""The whole command in workspaces that others could have made."""

import json
from pathlib import Path

import psutil
import pytest

from lib_events.testing import wait_until

ALL = {"app-svc", "lib-bus", "lib-core", "lib-lone"}
ON_CORE = {"app-svc", "lib-bus", "lib-core"}


def append(path, text):
    path.write_text(path.read_text() + text)


def test_what_passed_is_known_again_whatever_the_target(bare_workspace):
    workspace = bare_workspace
    first = workspace.pipeline()
    again = workspace.pipeline("all")
    assert (first.code, again.code) == (0, 0), first.err
    for target in ("lint", "types", "test", "build"):
        assert first.members("ran", target) == ALL
        assert again.members("cached", target) == ALL
    assert "ran" not in again.out
    assert "17 cached" in again.out


def test_wheels_come_back_from_the_cache(known_workspace):
    workspace = known_workspace
    workspace.pipeline("build")
    made = {path.name: path.read_bytes() for path in (workspace.root / "dist").glob("*.whl")}
    for path in (workspace.root / "dist").iterdir():
        path.unlink()
    assert workspace.pipeline("build").members("cached", "build") == ALL
    assert {path.name: path.read_bytes() for path in (workspace.root / "dist").glob("*.whl")} == made
    assert len(made) == len(ALL)


def test_an_edit_runs_again_whoever_stands_on_it_and_nobody_else(known_workspace):
    workspace = known_workspace
    append(workspace.source("app-svc"), "\n\ndef leaf() -> int:\n    return 1\n")
    leaf = workspace.pipeline("test", "types", "lint")
    assert leaf.members("ran") == leaf.members("ran", "types") == leaf.members("ran", "lint") == {"app-svc"}
    append(workspace.source("lib-core"), "\n\ndef shared() -> int:\n    return 1\n")
    shared = workspace.pipeline("test", "types", "lint")
    assert shared.members("ran") == shared.members("ran", "types") == ON_CORE
    assert shared.members("ran", "lint") == {"lib-core"}


def test_a_library_broken_behind_its_own_tests_turns_its_dependents_red_and_mending_it_is_known(known_workspace):
    workspace = known_workspace
    whole, tests = workspace.source("lib-core").read_text(), workspace.test("lib-core").read_text()
    workspace.source("lib-core").write_text(whole.replace("return 1", "return 2"))
    workspace.test("lib-core").write_text("def test_nothing():\n    pass\n")
    broken = workspace.pipeline("test")
    assert broken.code == 1
    assert broken.members("failed") == {"lib-bus", "app-svc"}
    assert broken.members("ran") == {"lib-core"}
    workspace.source("lib-core").write_text(whole)
    workspace.test("lib-core").write_text(tests)
    assert workspace.pipeline("test").members("cached") == ALL


def test_a_failure_is_never_remembered(workspace):
    append(workspace.test("lib-lone"), "\n\ndef test_wrong():\n    assert value() == 7\n")
    assert workspace.pipeline("test", "lib-lone").members("failed") == {"lib-lone"}
    assert workspace.pipeline("test", "lib-lone").members("failed") == {"lib-lone"}


def test_another_place_and_no_git_make_no_difference(known_workspace):
    clone = known_workspace.clone("elsewhere", same_cache=True)
    (clone.root / ".git").rename(clone.root.parent / "git")
    run = clone.pipeline("test", "lint", "build")
    assert run.members("cached") == run.members("cached", "lint") == run.members("cached", "build") == ALL


def test_tests_see_declared_variables_which_are_in_the_key_and_no_others(workspace):
    append(workspace.root / "pyproject.toml", '\n[tool.pipeline]\nenvironment = ["WANTED"]\n')
    checks = (
        "\n\ndef test_environment():\n    import os\n\n    assert os.environ['WANTED'] and 'OTHER' not in os.environ\n"
    )
    append(workspace.test("lib-lone"), checks)
    assert workspace.pipeline("test", "lib-lone", WANTED="1", OTHER="1").members("ran") == {"lib-lone"}
    assert workspace.pipeline("test", "lib-lone", WANTED="1", OTHER="2").members("cached") == {"lib-lone"}
    assert workspace.pipeline("test", "lib-lone", WANTED="2").members("ran") == {"lib-lone"}


def test_tests_cannot_use_a_member_they_do_not_declare(bare_workspace):
    workspace = bare_workspace
    append(workspace.test("lib-lone"), "\n\ndef test_undeclared():\n    import lib_core\n\n    assert lib_core\n")
    run = workspace.pipeline("test")
    assert run.members("failed") == {"lib-lone"}
    assert "No module named 'lib_core'" in run.err


def test_only_what_a_change_can_reach_is_looked_at_when_asked(known_workspace):
    workspace = known_workspace
    workspace.git("checkout", "--quiet", "-b", "change")
    append(workspace.source("lib-bus"), "\n\ndef more() -> int:\n    return 1\n")
    workspace.git("commit", "--quiet", "--all", "--message", "More")
    assert workspace.pipeline("test", "--affected").members("ran") == {"lib-bus", "app-svc"}
    workspace.test("lib-lone").unlink()
    (workspace.root / "projects" / "lib-lone" / "tests" / "test_other.py").write_text("def test_other():\n    pass\n")
    assert workspace.pipeline("test", "--since", "HEAD").members("ran") == {"lib-lone"}
    wrong = workspace.pipeline("test", "--since", "nowhere")
    assert (wrong.code, "--affected must know which commit" in wrong.err) == (2, True)


def test_a_member_without_tests_says_so_and_is_green(known_workspace):
    workspace = known_workspace
    workspace.test("lib-lone").unlink()
    run = workspace.pipeline("test")
    assert run.code == 0
    assert run.members("nothing") >= {"lib-lone"}
    assert "no tests" in next(line for line in run.out.splitlines() if line.startswith("lib-lone"))
    workspace.test("lib-lone").write_text('"""Nothing in it."""\n')
    assert "no tests were collected" in workspace.pipeline("test", "lib-lone").err


def test_a_failing_test_shows_its_own_output_and_not_a_wall(workspace):
    loop = "    for line in range(5000):\n        print('line', line)\n"
    wall = f"\n\ndef test_wrong():\n{loop}    assert value() == 'the reason'\n"
    append(workspace.test("lib-lone"), wall)
    run = workspace.pipeline("test")
    assert run.code == 1
    assert "assert 1 == 'the reason'" in run.err
    assert len(run.err.splitlines()) < 100
    log = next(task["log"] for task in run.report["tasks"] if task["status"] == "failed")
    assert "line 4999" in Path(log).read_text()


def test_what_changes_while_it_is_tested_is_not_remembered(workspace):
    source = str(workspace.source("lib-lone"))
    write = f"    with open({source!r}, 'a') as file:\n        file.write('\\n# more\\n')\n"
    rewrite = f"\n\ndef test_meanwhile():\n{write}"
    append(workspace.test("lib-lone"), rewrite)
    first = workspace.pipeline("test", "lib-lone")
    assert (first.code, first.members("ran")) == (0, {"lib-lone"})
    assert "files changed meanwhile" in first.err
    before = workspace.source("lib-lone").read_text()
    workspace.source("lib-lone").write_text(before.replace("\n# more\n", ""))
    assert workspace.pipeline("test", "lib-lone").members("ran") == {"lib-lone"}


def test_a_cycle_between_members_is_refused_by_name(workspace):
    manifest = workspace.root / "projects" / "lib-core" / "pyproject.toml"
    text = manifest.read_text().replace("dependencies = []", 'dependencies = ["app-svc"]')
    manifest.write_text(text + "app-svc = { workspace = true }\n")
    workspace.lock()
    run = workspace.pipeline("test")
    assert run.code == 2, run.err
    assert "must not depend on one another in a cycle, got app-svc -> lib-bus -> lib-core -> app-svc" in run.err


def test_a_lock_that_says_something_else_is_refused(workspace):
    append(workspace.root / "projects" / "lib-lone" / "pyproject.toml", '\n[dependency-groups]\nmore = ["lib-core"]\n')
    run = workspace.pipeline("test")
    assert (run.code, "uv.lock must match" in run.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["test", "nobody"], "A member must be one of app-svc, lib-bus, lib-core, lib-lone, workspace, got nobody"),
        (["test", "--root", "/"], "must start inside a uv workspace"),
    ],
)
def test_what_cannot_be_started_says_why_and_exits_with_2(workspace, arguments, said):
    run = workspace.pipeline(*arguments)
    assert (run.code, said in run.err) == (2, True), run.err


def test_the_report_says_what_the_guide_promises(workspace):
    report = workspace.pipeline("lint", "lib-lone").report
    assert report["format"] == 1
    assert report["counts"] == {"ran": 1}
    assert report["cache"] == {"local": "on", "shared": "off", "note": ""}
    [task] = report["tasks"]
    assert json.loads(json.dumps(task)).keys() == {"member", "target", "status", "seconds", "key", "note", "log"}


def test_tests_that_read_what_their_key_does_not_cover_fail_and_say_what(workspace):
    read = "\n\ndef test_neighbour():\n    import pathlib\n\n    assert pathlib.Path({!r}).read_text()\n"
    append(workspace.test("lib-lone"), read.format(str(workspace.source("lib-core"))))
    run = workspace.pipeline("test", "lib-lone")
    assert run.members("failed") == {"lib-lone"}
    assert "got projects/lib-core/src/lib_core/__init__.py; declare the member" in run.err


def test_what_processes_started_by_tests_read_counts_too(workspace):
    (workspace.root / "notes").mkdir()
    (workspace.root / "notes" / "plan.md").write_text("one")
    append(workspace.root / "pyproject.toml", '\n[tool.pipeline]\napart = ["notes/*"]\n')
    start = "    subprocess.run([sys.executable, '-c', 'open(\"notes/plan.md\").close()'], check=True)\n"
    append(workspace.test("lib-lone"), f"\n\ndef test_child():\n    import subprocess\n    import sys\n\n{start}")
    run = workspace.pipeline("test", "lib-lone")
    assert run.members("failed") == {"lib-lone"}
    assert "got notes/plan.md; declare" in run.err


def test_a_link_to_another_members_file_leads_to_that_file(workspace):
    (workspace.root / "projects" / "lib-lone" / "borrowed").symlink_to(workspace.source("lib-core").parent)
    read = "    assert (pathlib.Path(__file__).parents[1] / 'borrowed' / '__init__.py').read_text()\n"
    append(workspace.test("lib-lone"), f"\n\ndef test_link():\n    import pathlib\n\n{read}")
    run = workspace.pipeline("test", "lib-lone")
    assert run.members("failed") == {"lib-lone"}
    assert "got projects/lib-core/src/lib_core/__init__.py; declare the member" in run.err


@pytest.mark.parametrize("options", [[], ["--no-cache"]], ids=["with the cache", "without"])
async def test_whoever_ends_it_ends_what_it_has_started(workspace, tmp_path, options):
    note = tmp_path / "pid"
    body = f"    pathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n    time.sleep(60)\n"
    append(
        workspace.test("lib-lone"),
        f"\n\ndef test_long():\n    import os\n    import pathlib\n    import time\n\n{body}",
    )
    with workspace.start("test", "lib-lone", *options) as process:
        await wait_until(lambda: note.exists() and note.read_text(), timeout=60)
        process.terminate()
        assert process.wait(timeout=60) == 130
        assert "interrupted" in process.stderr.read()
    await wait_until(lambda: not psutil.pid_exists(int(note.read_text())), timeout=30)
