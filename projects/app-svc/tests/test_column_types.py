from typing import Any

import pytest

from app_svc.column_types import ValueMisfit, infer, read


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2", "+3", ""], "integer"),
        (["1", "2.5", "-.5", "1e3"], "number"),
        (["true", "No", "YES", "false"], "boolean"),
        (["2026-03-31", "2026-04-01"], "date"),
        (["2026-03-31T12:00:00Z", "2026-03-31 12:00"], "datetime"),
        (["007", "008", "009"], "text"),
        (["12345678901234567890"], "text"),
        (["2026-13-31", "2026-14-01"], "text"),
        (["", "NA", "-"], "text"),
        ([], "text"),
        (["1e999", "1e998"], "text"),
    ],
)
def test_a_column_has_the_narrowest_type_its_values_have(cells: list[str], expected: str) -> None:
    assert infer(cells) == expected


def test_one_slip_in_a_short_column_does_not_make_it_text() -> None:
    assert infer(["1", "2", "x"]) == "text"
    assert infer(["1", "2", "3", "x"]) == "integer"


def test_more_than_one_in_twenty_slips_make_a_column_text() -> None:
    assert infer([str(n) for n in range(95)] + ["x"] * 5) == "integer"
    assert infer([str(n) for n in range(94)] + ["x"] * 6) == "text"


def test_values_of_json_keep_the_type_json_gave_them() -> None:
    assert infer(["1", "2"], typed=True) == "text"
    assert infer([1, 2.5], typed=True) == "number"
    assert infer([True, False], typed=True) == "boolean"
    assert read(7, "text", typed=True) == "7"
    with pytest.raises(ValueMisfit, match=r"must be an integer, got '7'"):
        read("7", "integer", typed=True)


@pytest.mark.parametrize(
    ("cell", "column_type", "value"),
    [
        (" 42 ", "integer", 42),
        ("1.50", "number", 1.5),
        ("3", "number", 3.0),
        ("no", "boolean", False),
        ("n/a", "number", None),
        ("", "text", None),
        ("NA", "text", "NA"),
        (" kept ", "text", " kept "),
        ("2026-03-31 12:00", "datetime", "2026-03-31T12:00:00"),
        ("2026-03-31T12:00:00+02:00", "datetime", "2026-03-31T10:00:00Z"),
    ],
)
def test_a_cell_is_read_as_its_columns_type(cell: str, column_type: Any, value: object) -> None:
    assert read(cell, column_type) == value


def test_a_misfit_names_what_was_wanted_and_shows_only_the_start_of_a_long_value() -> None:
    with pytest.raises(ValueMisfit) as caught:
        read("x" * 1000, "date")
    assert str(caught.value).startswith("must be a date like 2026-03-31, got 'xxx")
    assert len(str(caught.value)) < 120
