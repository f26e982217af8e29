"""The command line as a whole: version, help, mistakes, exit codes."""

import subprocess
import sys

import pytest

from cli_proj.command_table import COMMANDS


def test_version_is_printed_without_importing_the_parser(shell):
    code = "import sys; from cli_proj.__main__ import main; main(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("evs 0.")
    assert not {"cyclopts", "rich", "httpx", "pydantic"} & set(eval(done.stdout.splitlines()[1]))


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_every_command_on_standard_output(shell, arguments):
    answer = shell.evs(*arguments)
    assert answer.code == 0
    assert all(f"  {entry.name}" in answer.out for entry in COMMANDS)
    assert "\033[" not in answer.out


def test_help_may_be_asked_for_as_a_command(shell):
    assert shell.evs("help", "run", "start").out == shell.evs("run", "start", "--help").out != ""


def test_a_reader_who_leaves_before_the_help_is_printed_is_no_error(shell):
    command = " ".join(shell.command("--help"))
    script = f"({command}) > >(exec true); exit $?"
    done = subprocess.run(["bash", "-c", script], env=shell.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_of_the_table_has_help(shell, entry):
    answer = shell.evs_anew(entry.name, "--help")  # whatever it needs, it imports
    assert answer.code == 0, answer.err
    assert f"evs {entry.name}" in answer.out


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [(("rnu",), "evs run"), (("run", "strat"), '"start"'), (("run", "list", "--sttus", "failed"), "--status")],
)
def test_a_mistyped_command_or_option_is_a_usage_error_with_a_suggestion(shell, arguments, suggestion):
    answer = shell.evs(*arguments)
    assert answer.code == 2
    assert suggestion in answer.err
    assert answer.out == ""


def test_an_argument_too_many_is_named_with_the_command_that_does_not_take_it(shell):
    answer = shell.evs("run", "signal", "o-42", "address-changed", "Elm Street")
    assert answer.code == 2
    assert "evs run signal takes no further argument, got 'Elm Street'" in answer.err
    assert "evs run signal --help" in answer.err


def test_an_unknown_format_is_a_usage_error_that_lists_the_formats(shell):
    answer = shell.evs("run", "list", "-o", "xml")
    assert answer.code == 2
    assert "jsonl" in answer.err


def test_without_a_product_a_command_says_how_to_start_one(shell):
    answer = shell.evs("run", "list")
    assert answer.code == 3
    assert "evs up" in answer.err


def test_a_product_that_does_not_answer_is_a_failure_that_says_where_it_was_looked_for(shell):
    nowhere = {"EVS_APP_URL": "http://127.0.0.1:9", "EVS_AUTH_URL": "http://127.0.0.1:9", "EVS_TOKEN": "x"}
    answer = shell.with_variables(**nowhere).evs("run", "list")
    assert answer.code == 1
    assert "127.0.0.1:9" in answer.err
