"""Keys, one ingredient at a time: what must make them new does, and nothing else."""

import dataclasses
import os
import re

import pytest

from lib_pipeline.plan import plan
from lib_pipeline.running import survey
from lib_pipeline.settings import SettingsUnclear, read_settings, surroundings
from lib_pipeline.targets import TASKS, Target
from lib_pipeline.workspace import required_name

MEMBERS = ("app-svc", "lib-bus", "lib-core", "lib-lone")


@pytest.fixture(scope="module")
def surveyed():
    """What was found of the workspace as it is made, once somebody has looked: each test begins with the same."""
    return []


@pytest.fixture
def ground(workspace, surveyed):
    if not surveyed:
        surveyed.append(survey(workspace.root, {}))
    return surveyed[0]


def keys(ground, target=Target.TEST):
    return {task.member: task.key for task in plan(ground, [target], MEMBERS)}


def changed(before, after):
    return {member for member in before if before[member] != after[member]}


@pytest.mark.parametrize("target", TASKS)
def test_nothing_changed_nothing_new(ground, workspace, target):
    assert keys(ground, target) == keys(survey(workspace.root, {}), target)


@pytest.mark.parametrize("part", ["python", "uv", "system", "pipeline"])
@pytest.mark.parametrize("target", [Target.LINT, Target.TYPES, Target.TEST, Target.BUILD])
def test_another_interpreter_uv_system_or_pipeline_makes_every_key_new(ground, part, target):
    identity = {**ground.toolchain.identity, part: "another"}
    other = dataclasses.replace(ground, toolchain=dataclasses.replace(ground.toolchain, identity=identity))
    assert changed(keys(ground, target), keys(other, target)) == set(MEMBERS)


@pytest.mark.parametrize(
    ("package", "target", "members"),
    [
        ("iniconfig", Target.TEST, set(MEMBERS)),  # pytest's, of the root's development group
        ("pyyaml", Target.TEST, {"app-svc"}),
        ("pyyaml", Target.LINT, set()),
        ("pyyaml", Target.TYPES, set(MEMBERS)),  # the room of type checkers holds everything
        ("ruff", Target.LINT, set(MEMBERS)),
        ("ruff", Target.BUILD, set()),
    ],
)
def test_a_locked_entry_is_in_the_keys_of_who_has_it_in_the_room(workspace, package, target, members):
    manifest = workspace.root / "projects" / "app-svc" / "pyproject.toml"
    manifest.write_text(manifest.read_text().replace('"lib-bus"]', '"lib-bus", "pyyaml"]'))
    workspace.lock()
    before = keys(survey(workspace.root, {}), target)
    lock = workspace.root / "uv.lock"
    entry = re.compile(rf'(name = "{package}"\nversion = .*?hash = "sha256:)(.)', re.DOTALL)
    assert entry.search(lock.read_text())
    lock.write_text(entry.sub(lambda found: found[1] + ("0" if found[2] != "0" else "1"), lock.read_text(), count=1))
    assert changed(before, keys(survey(workspace.root, {}), target)) == members


@pytest.mark.parametrize(
    ("path", "target", "members"),
    [
        ("projects/lib-core/src/lib_core/__init__.py", Target.TEST, {"lib-core", "lib-bus", "app-svc"}),
        ("projects/lib-core/src/lib_core/__init__.py", Target.TYPES, {"lib-core", "lib-bus", "app-svc"}),
        ("projects/lib-core/src/lib_core/__init__.py", Target.LINT, {"lib-core"}),
        ("projects/lib-core/src/lib_core/__init__.py", Target.BUILD, {"lib-core"}),
        ("projects/lib-core/tests/data/new.json", Target.TEST, {"lib-core", "lib-bus", "app-svc"}),
        ("projects/lib-core/src/lib_other/__init__.py", Target.LINT, set(MEMBERS)),  # first-party is told by names
        ("pyproject.toml", Target.LINT, set(MEMBERS)),
        ("pyproject.toml", Target.BUILD, set(MEMBERS)),
        (".python-version", Target.LINT, set(MEMBERS)),
        (".python-version", Target.TEST, set(MEMBERS)),
        (".python-version", Target.BUILD, set(MEMBERS)),
        ("conftest.py", Target.TEST, set(MEMBERS)),
        ("ruff.toml", Target.LINT, set(MEMBERS)),
        ("config/ruff.toml", Target.LINT, set(MEMBERS)),  # a configuration may extend another
        ("data/shared.json", Target.TEST, set(MEMBERS)),
        ("notes.md", Target.LINT, set()),
    ],
)
def test_a_file_is_in_the_keys_of_whatever_may_read_it(ground, workspace, path, target, members):
    place = workspace.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text((place.read_text() if place.exists() else "") + "\n")
    found = changed(keys(ground, target), keys(survey(workspace.root, {}), target))
    assert found >= members
    if not path.startswith(("pyproject", "data")):
        assert found == members


def append(path, text):
    path.write_text(path.read_text() + text)


def test_what_belongs_to_no_member_is_in_every_members_key_unless_it_is_set_apart(workspace):
    append(workspace.root / "pyproject.toml", '\n[tool.pipeline]\napart = ["notes/*"]\n')
    (workspace.root / "notes").mkdir()
    (workspace.root / "notes" / "plan.md").write_text("one")
    (workspace.root / "data.json").write_text("{}")
    before = keys(survey(workspace.root, {}))
    (workspace.root / "notes" / "plan.md").write_text("two")
    assert keys(survey(workspace.root, {})) == before
    (workspace.root / "data.json").write_text("[]")
    assert changed(before, keys(survey(workspace.root, {}))) == set(MEMBERS)


def test_ignored_files_are_in_every_key_when_they_are_declared(workspace):
    append(workspace.root / "pyproject.toml", '\n[tool.pipeline]\ninputs = ["*.local"]\n')
    (workspace.root / "secrets.local").write_text("one")
    before = keys(survey(workspace.root, {}))
    (workspace.root / "secrets.local").write_text("two")
    assert changed(before, keys(survey(workspace.root, {}))) == set(MEMBERS)


def test_type_checkers_may_see_members_that_nobody_declared(workspace):
    source = workspace.source("lib-lone")
    source.write_text(f"import os, lib_bus.more as bus\n{source.read_text()}")
    before = survey(workspace.root, {})
    workspace.source("lib-core").write_text("def value() -> str:\n    return ''\n")
    after = survey(workspace.root, {})
    assert "lib-lone" in changed(keys(before, Target.TYPES), keys(after, Target.TYPES))
    assert "lib-lone" not in changed(keys(before, Target.TEST), keys(after, Target.TEST))


def test_times_and_ignored_files_are_in_no_key(ground, workspace):
    os.utime(workspace.source("lib-core"), (0, 0))
    (workspace.source("lib-core").parent / "__pycache__").mkdir()
    (workspace.source("lib-core").parent / "__pycache__" / "a.pyc").write_bytes(b"1")
    (workspace.root / "dist").mkdir()
    (workspace.root / "dist" / "a.whl").write_bytes(b"1")
    assert keys(survey(workspace.root, {})) == keys(ground)


def test_what_runs_and_where_links_lead_is_in_the_key(ground, workspace):
    workspace.test("lib-lone").chmod(0o755)
    executable = survey(workspace.root, {})
    assert changed(keys(ground), keys(executable)) == {"lib-lone"}
    (workspace.root / "projects" / "lib-lone" / "link").symlink_to(workspace.root / "pyproject.toml")
    link = survey(workspace.root, {})
    assert changed(keys(executable), keys(link)) == {"lib-lone"}


@pytest.mark.parametrize(
    ("name", "new"), [("CI", True), ("TZ", True), ("LANG", True), ("HOME", False), ("OTHER", False)]
)
def test_variables_that_programs_behave_by_are_in_every_key(workspace, ground, name, new):
    assert (keys(survey(workspace.root, {name: "1"})) != keys(ground)) is new


def test_whether_a_declared_program_is_there_is_in_every_key():
    settings = read_settings({"programs": ["git", "no-such-program"]})
    assert surroundings(settings, {}).keyed == {"program git": "True", "program no-such-program": "False"}


@pytest.mark.parametrize("table", [{"enviroment": []}, {"inputs": "*.env"}, {"apart": [1]}])
def test_settings_nobody_understands_are_refused(table):
    with pytest.raises(SettingsUnclear, match=r"\[tool\.pipeline\].*must"):
        read_settings(table)


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("uv_build>=0.8,<1", "uv-build"), ("A.b_c[x] ; python_version > '3'", "a-b-c"), ("x@https://example.org/x", "x")],
)
def test_a_requirement_names_its_package(requirement, name):
    assert required_name(requirement) == name
