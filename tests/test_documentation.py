"""Documentation is spelled right, and what is outside of the site leads where it says; mkdocs sees to the rest."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODESPELL = Path(sys.executable).with_name("codespell")
PYTHON = re.compile(r"^```(?:python|py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r'--8<-- "([^":]+)(?::[\w-]+)?"\n')
RUN_BY = {  # the test that runs all Python of a page that cannot include a file
    "projects/lib-auth/README.md": "projects/auth-svc/tests/test_lib_auth_readme.py",
    "projects/lib-events/README.md": "projects/lib-events/tests/test_readme.py",
    "projects/lib-workflows/README.md": "projects/lib-workflows/tests/test_readme.py",
}
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("projects/*/README.md"), *ROOT.glob("benchmarks/*.md")))


def spell(folder):
    command = (str(CODESPELL), "--toml", str(ROOT / "pyproject.toml"))
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_documentation_and_comments_are_spelled_right():
    done = spell(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_misspelling_is_found(tmp_path):
    (tmp_path / "page.md").write_text("The recieved event.\n")  # codespell:ignore
    assert "==> received" in spell(tmp_path).stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_pages_outside_of_the_site_lead_to_files(page):
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


def test_all_python_that_is_shown_is_run_by_tests():
    pages = [*PAGES, *ROOT.glob("docs/**/*.md")]
    assert unrun({str(page.relative_to(ROOT)): page.read_text() for page in pages}) == []


def test_python_that_nobody_runs_is_found():
    shown = "```python\nprint(1)\n```\n"
    assert unrun({"docs/page.md": shown, "projects/lib-events/README.md": shown}) == ["docs/page.md: print(1)"]
    assert unrun({"docs/page.md": '```python\n--8<-- "examples/there_is_no_such_example.py:some"\n```\n'}) == [
        "examples/there_is_no_such_example.py"
    ]


def unrun(pages):
    """What of the pages' Python no test runs: blocks of their own, and examples that no test names."""
    blocks = [(page, block) for page, text in pages.items() if page not in RUN_BY for block in PYTHON.findall(text)]
    own = [f"{page}: {block.strip()}" for page, block in blocks if not INCLUDED.fullmatch(block)]
    names = {found[1] for text in pages.values() for found in INCLUDED.finditer(text)}
    paths = {*ROOT.glob("tests/**/*.py"), *ROOT.glob("projects/*/tests/**/*.py")} - {Path(__file__)}
    tests = [path.read_text() for path in paths]
    unnamed = {name for name in names if name.startswith("examples/") and not _is_named(Path(name).stem, tests)}
    return own + sorted(unnamed)


def _is_named(example, tests):
    return any(re.search(rf"\b{example}(\.py)?[\"']", text) for text in tests)


def test_pages_whose_python_has_a_test_have_that_test():
    for page, test in RUN_BY.items():
        assert (ROOT / page).name in (ROOT / test).read_text()
