"""Data on standard output: the formats, and text that must not steer the terminal."""

import json

import httpx
import pytest
import yaml

from cli_proj.api import failure_of
from cli_proj.column import Column
from cli_proj.commands.workflow import describe_batch, describe_delegation
from cli_proj.exit_codes import ExitCode
from cli_proj.messages import printable
from cli_proj.output import Output
from cli_proj.table import fit

ITEMS = [{"id": "a", "status": "completed", "name": "Zoë"}, {"id": "b", "status": "failed", "name": None}]
COLUMNS = (
    Column("id", lambda item: item["id"]),
    Column("status", lambda item: item["status"], is_status=True),
    Column("name", lambda item: item["name"], is_wide=True),
)


def test_json_is_one_array(capsys):
    Output("json").items(ITEMS, COLUMNS, empty="")
    assert json.loads(capsys.readouterr().out) == ITEMS


def test_jsonl_is_one_object_a_line(capsys):
    Output("jsonl").items(ITEMS, COLUMNS, empty="")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ITEMS


def test_yaml_is_one_document(capsys):
    Output("yaml").items(ITEMS, COLUMNS, empty="")
    assert yaml.safe_load(capsys.readouterr().out) == ITEMS


def test_a_table_has_headings_words_for_each_status_and_no_trailing_blanks(capsys):
    Output("table").items(ITEMS, COLUMNS, empty="")
    out = capsys.readouterr().out
    assert out.splitlines() == ["ID  STATUS       NAME", "a   ✓ completed  Zoë", "b   ✗ failed"]


def test_an_empty_table_is_said_on_standard_error_and_an_empty_list_is_printed_as_json(capsys):
    Output("table").items([], COLUMNS, empty="there is nothing")
    assert capsys.readouterr() == ("", "there is nothing\n")
    Output("json").items([], COLUMNS, empty="there is nothing")
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("hostile", ["\033[2J", "\x9b31m", "\rroot", "\x07", "\u202eevil"])
def test_control_characters_from_elsewhere_are_shown_not_obeyed(hostile):
    shown = printable(f"name{hostile}")
    assert shown.startswith("name\\x")
    assert hostile[0] not in shown


def test_a_table_shows_a_newline_in_a_value_on_one_line(capsys):
    Output("table").items([ITEMS[0] | {"name": "a\nb"}], COLUMNS, empty="")
    assert "a⏎b" in capsys.readouterr().out


def test_on_a_narrow_terminal_the_wide_column_is_cut_then_optional_columns_go_and_identifiers_stay():
    identifier, note = Column("id", str), Column("note", str, is_wide=True)
    by = Column("by", str, is_optional=True)
    widths = {identifier: 32, by: 10, note: 60}
    assert fit(widths, None) == widths
    assert fit(widths, 80) == {identifier: 32, by: 10, note: 34}
    assert fit(widths, 46) == {identifier: 32, by: 10}
    assert fit(widths, 40) == {identifier: 32}


def test_what_a_workflow_does_in_ones_name_is_said_in_a_line():
    delegation = {
        "resource": "https://orders.example",
        "scope": ["orders:read", "orders:list"],
        "lasts_seconds": 43_200,
    }
    told = "https://orders.example with orders:read, orders:list, until it ends, at most 0.5 days"
    assert describe_delegation(delegation) == told


def test_how_events_gather_is_said_in_a_line():
    batch = {"events": 100, "timeout_seconds": 5.0, "key": "merchant"}
    assert describe_batch(batch) == "100 of each merchant, or those that have come 5 s after the first"
    assert describe_batch(batch | {"key": None}) == "100, or those that have come 5 s after the first"


def test_who_has_to_allow_something_first_is_told_where():
    allow = "https://sign-in.example/account/apps/allow?client=evs-app"
    problem = {"title": "Allow it first", "detail": "report acts for you", "consent_uri": allow}
    request = httpx.Request("POST", "https://app.example/v1/runs")
    failure = failure_of(httpx.Response(403, json=problem, request=request), service="AppService")
    assert (failure.code, str(failure)) == (ExitCode.NOT_ALLOWED, "report acts for you")
    assert failure.hint == f"open {allow} in a browser and allow it, once; then do the same again"
