"""A workflow's input from the command line."""

import pytest

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.run_input import from_parameters, read_value

SCHEMA = {
    "properties": {
        "data": {"type": "string"},
        "count": {"type": "integer"},
        "mode": {"$ref": "#/$defs/Mode"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "rows": {"type": "array"},
    },
    "$defs": {"Mode": {"enum": ["1", "2"]}},
}


def test_a_text_parameter_stays_text_even_if_it_looks_like_a_number():
    assert from_parameters(["data=42", "mode=1"], SCHEMA) == {"data": "42", "mode": "1"}


def test_other_parameters_are_read_as_json():
    assert from_parameters(["count=42", "rows=[1,2]", "note=null"], SCHEMA) == {
        "count": 42,
        "rows": [1, 2],
        "note": None,
    }


def test_what_is_no_json_is_left_for_the_service_to_refuse():
    assert from_parameters(["count=many"], SCHEMA) == {"count": "many"}


def test_a_parameter_may_contain_the_equals_sign_and_nothing():
    assert from_parameters(["data=a=b", "note="], SCHEMA) == {"data": "a=b", "note": ""}


def test_a_text_parameter_reads_the_file_without_its_byte_order_mark(tmp_path):
    file = tmp_path / "table.csv"
    file.write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert from_parameters([f"data=@{file}"], SCHEMA) == {"data": "a,b\n1,2\n"}


@pytest.mark.parametrize("parameter", ["data", "=x", ""])
def test_a_parameter_without_a_name_or_a_value_is_a_usage_error(parameter):
    with pytest.raises(CommandFailed, match="name=value") as raised:
        from_parameters([parameter], SCHEMA)
    assert raised.value.code == ExitCode.USAGE


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    binary = tmp_path / "picture"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandFailed, match="no-such-file"):
        read_value("@no-such-file", option="--input")
    with pytest.raises(CommandFailed, match="UTF-8"):
        read_value(f"@{binary}", option="--input")


def test_malformed_json_is_a_usage_error_that_says_where():
    with pytest.raises(CommandFailed, match="line 1 column 2") as raised:
        read_value("{oops", option="--input")
    assert raised.value.code == ExitCode.USAGE
