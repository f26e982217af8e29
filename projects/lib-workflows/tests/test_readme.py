"""What the README shows is run."""

import asyncio
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "shown"}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(compile(block, str(README), "exec"), names)
    return names, capsys.readouterr().out


def test_the_readmes_example_and_its_tests_work(shown):
    names, printed = shown
    assert printed == "receipt of o-42, to Elm Street\n"
    asyncio.run(names["test_three_days_pass_at_once"]())
    asyncio.run(names["test_it_survives_a_crash_at_every_commit"]())
    asyncio.run(names["test_it_survives_crashes_one_after_the_other_and_a_step_that_fails"]())
    asyncio.run(names["test_the_same_seed_gives_the_same_coupon"]())
