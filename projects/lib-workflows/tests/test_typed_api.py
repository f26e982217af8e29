"""mypy and pyright, both strict, read `typed_api.py`: every misuse is refused, every use has its type, nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TYPED = Path(__file__).with_name("typed_api.py")
ROOT = Path(__file__).parents[3]
MODULES = re.compile(r"\b(?:\w+\.)+(?=[A-Z])")
LINES = list(enumerate(TYPED.read_text().splitlines(), start=1))
MISUSES = [number for number, line in LINES if line.endswith("# error")]
REVEALED = {number: line.rpartition("# ")[2] for number, line in LINES if "reveal_type(" in line}


def run(*command):
    whole = [sys.executable, "-m", *command]
    done = subprocess.run(whole, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def plain(found):
    """A type without the modules of its names, and without pyright's word for no arguments."""
    return MODULES.sub("", found).replace("*tuple[()], ", "")


def by_mypy():
    options = ("--config-file", ROOT / "pyproject.toml", "--strict", "--output", "json", "--hide-error-context")
    for line in run("mypy", *options, TYPED).splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            yield found["line"], found["severity"], found["message"]


def by_pyright(folder):
    settings = {"include": [str(TYPED)], "typeCheckingMode": "strict", "pythonVersion": "3.13"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    output = run("basedpyright", "--outputjson", "--project", folder, "--pythonpath", sys.executable)
    for found in json.loads(output)["generalDiagnostics"]:
        yield found["range"]["start"]["line"] + 1, found["severity"], found["message"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_misuses_are_refused_and_uses_have_their_types(checker, tmp_path):
    refused, revealed = {}, {}
    for line, severity, message in by_mypy() if checker == "mypy" else by_pyright(tmp_path):
        if told := re.search(r'(?:Revealed type is|^Type of ".*" is) "(.*)"$', message):
            revealed[line] = plain(told[1])
        elif severity == "error":
            refused.setdefault(line, message)
    assert {line: refused[line] for line in refused if line not in MISUSES} == {}
    assert [line for line in MISUSES if line not in refused] == []
    assert revealed == REVEALED
