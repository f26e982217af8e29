"""The threat model names tests that are there, and each threat has a defence, an accepted risk or is open."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
THREATS = [
    line
    for line in (ROOT / "docs" / "reference" / "threat-model.md").read_text().splitlines()
    if re.match(r"\| [STRIDE] \|", line)
]


@cache
def names_of_tests() -> frozenset[str]:
    """Every test of every member."""
    paths = [*ROOT.glob("projects/*/tests/test_*.py"), *ROOT.glob("tests/**/test_*.py")]
    modules = [ast.parse(path.read_text()) for path in paths]
    functions = (node for module in modules for node in module.body)
    return frozenset(node.name for node in functions if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_threat_has_a_defence_or_is_accepted():
    assert len(THREATS) > 70
    for threat in THREATS:
        assert re.search(r"`test_\w+`|\*\*Accepted\*\*|\*\*Open\*\*", threat), threat


def test_every_test_it_names_is_there():
    named = {name for threat in THREATS for name in re.findall(r"`(test_\w+)`", threat)}
    assert named - names_of_tests() == set()
