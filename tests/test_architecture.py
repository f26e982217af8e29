"""The house keeps its shape: layers, names and sizes, checked by machine."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app_svc.settings import AppSettings
from auth_svc.settings import AuthSettings
from gui_proj.settings import GuiSettings
from lib_events.settings import OF_ONE_SERVICE, Settings

ROOT = Path(__file__).parents[1]
MEMBERS = sorted(path.parent for path in ROOT.glob("projects/*/pyproject.toml"))
MODULES = sorted(ROOT.glob("projects/*/src/**/*.py"))
TESTS = sorted((*ROOT.glob("projects/*/tests/**/*.py"), *ROOT.glob("tests/**/*.py")))
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
MODULE_LINES = 600


def test_imports_respect_the_layers():
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_a_member_that_no_contract_names_imports_libraries_only_and_nobody_imports_it():
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"])
    packages = {member.name.replace("-", "_") for member in MEMBERS}
    services = {package for package in packages if not package.startswith("lib_")}
    for module in MODULES:
        own = module.relative_to(ROOT).parts[3]
        allowed = named if own in named else packages - services
        assert imported(module) & packages <= allowed | {own}, f"{module} imports what it must not"


def imported(module):
    """The top-level packages that a module imports by name, wherever in it."""
    nodes = [*ast.walk(ast.parse(module.read_text()))]
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in named}


def test_each_service_knows_what_the_others_are_told_in_the_settings_file_that_they_share():
    services = (AuthSettings, AppSettings, GuiSettings)
    assert {
        name for service in services for name in service.model_fields
    } - Settings.model_fields.keys() == OF_ONE_SERVICE


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.name)
def test_folder_distribution_and_package_have_one_name(member):
    project = tomllib.loads((member / "pyproject.toml").read_text())["project"]
    package = member / "src" / member.name.replace("-", "_")
    assert project["name"] == member.name
    assert project["requires-python"] == ">=3.13"
    assert (package / "py.typed").exists()
    assert (member / "README.md").exists()
    assert list((member / "tests").glob("test_*.py"))


def test_modules_say_what_they_are_for_have_telling_names_and_stay_readable():
    sources = {str(module.relative_to(ROOT)): module.read_text() for module in MODULES}
    assert [name for name in sources if Path(name).stem in FORBIDDEN_NAMES] == []
    silent = [name for name, source in sources.items() if not ast.get_docstring(ast.parse(source))]
    assert silent == [], "a module opens with one sentence on what it is for"
    tests = {str(test.relative_to(ROOT)): test.read_text() for test in TESTS}
    assert [name for name, source in (sources | tests).items() if len(source.splitlines()) > MODULE_LINES] == []


def test_every_page_of_the_decisions_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs" / "adr").glob("*.md"):
        assert f"adr/{page.name}" in navigation
