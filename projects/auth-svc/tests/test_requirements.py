"""Requirements are data: each has a test or a recorded gap, and every test it names is there."""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = (HERE, HERE.parents[1] / "lib-auth" / "tests")
REQUIREMENTS = tomllib.loads((HERE / "requirements.toml").read_text())["requirement"]


@cache
def names_of_tests():
    modules = [ast.parse(path.read_text()) for folder in FOLDERS for path in folder.glob("test_*.py")]
    functions = (node for module in modules for node in module.body)
    return {node.name for node in functions if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda each: each["id"])
def test_a_requirement_has_a_test_or_a_reason(requirement):
    assert {"id", "source", "text"} <= requirement.keys()
    assert ("tests" in requirement) != ("gap" in requirement)
    assert set(requirement.get("tests", ())) <= names_of_tests()


def test_ids_are_unique():
    ids = [requirement["id"] for requirement in REQUIREMENTS]
    assert len(ids) == len(set(ids))
