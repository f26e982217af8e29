"""Requirements are data: each has a test or a recorded gap, and every test it names is there, and once."""

import ast
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECTS = HERE.parents[1] / "projects"
# The members that speak OAuth, and what speaks MCP.
MODULES = [
    *(path for member in ("auth-svc", "lib-auth", "gui-proj") for path in PROJECTS.glob(f"{member}/tests/test_*.py")),
    *PROJECTS.glob("app-svc/tests/test_agents*.py"),
]
SPECIFICATIONS = {path.stem: tomllib.loads(path.read_text()) for path in sorted(HERE.glob("*.toml"))}
CLAIMED = {
    *("oauth21", "rfc6750", "rfc7009", "rfc7523", "rfc7591", "rfc7592", "rfc7636", "rfc7662", "rfc8252", "rfc8414"),
    *("rfc8628", "rfc8693", "rfc8707", "rfc8725", "rfc9068", "rfc9101", "rfc9126", "rfc9207", "rfc9449", "rfc9470"),
    *("rfc9700", "rfc9728", "cimd", "oidc-core", "oidc-discovery", "oidc-registration", "oidc-logout"),
    *("oidc-backchannel", "oidc-form-post", "factors", "mcp"),
}


@cache
def names_of_tests() -> Counter[str]:
    """Their test functions, and how often each name is there."""
    modules = [ast.parse(path.read_text()) for path in MODULES]
    functions = (node for module in modules for node in module.body)
    return Counter(node.name for node in functions if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_each_requirement_has_a_test_or_a_reason(name, subtests):
    for requirement in SPECIFICATIONS[name]["requirement"]:
        with subtests.test(requirement["id"]):
            assert requirement.keys() - {"tests", "gap"} == {"id", "source", "level", "text"}
            assert requirement["id"].startswith(f"{name}-")
            assert requirement["level"] in {"must", "should"}
            assert requirement["text"].endswith(".")
            assert ("tests" in requirement) != ("gap" in requirement)
            assert requirement.get("gap", "A reason.")[-1] == "."
            missing = set(requirement.get("tests", ())) - names_of_tests().keys()
            assert not missing
            assert all(names_of_tests()[test] == 1 for test in requirement.get("tests", ()))


def test_every_specification_that_is_claimed_is_there():
    assert set(SPECIFICATIONS) == CLAIMED
    assert all({"specification", "title", "url"} <= document.keys() for document in SPECIFICATIONS.values())


def test_ids_are_unique():
    ids = Counter(each["id"] for document in SPECIFICATIONS.values() for each in document["requirement"])
    assert {name for name, times in ids.items() if times > 1} == set()
