import hashlib
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app_svc.column_types import Value
from app_svc.table_plan import Fault, TablePlan, make_plan, read_part
from app_svc.table_profile import profile_columns
from app_svc.table_text import TableMalformed


def plan_of(text: str, *, file_format: Any = "auto", delimiter: str | None = None, part_rows: int = 500) -> TablePlan:
    return make_plan(text, file_format=file_format, delimiter=delimiter, part_rows=part_rows)


def read_all(text: str, plan: TablePlan) -> tuple[list[list[Value]], list[Fault]]:
    rows: list[list[Value]] = []
    faults: list[Fault] = []
    for part in plan.parts:
        good, bad = read_part(text[part.start : part.end], part.first_line, plan)
        rows += good
        faults += bad
    return rows, faults


def test_the_shipped_file_is_the_one_its_readme_describes() -> None:
    folder = files("app_svc") / "data"
    content = (folder / "us-airports.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() in (folder / "README.md").read_text()
    text = content.decode()
    plan = plan_of(text)
    rows, faults = read_all(text, plan)
    assert (len(rows), faults) == (3_376, [])
    assert [column.type for column in plan.columns] == ["text"] * 5 + ["number"] * 2


def test_quotes_embedded_newlines_and_a_byte_order_mark_are_read() -> None:
    text = '\ufeffname,note\r\n"Smith, Jo","two\r\nlines"\r\nAnn,"says ""hi"""\r\n'
    plan = plan_of(text, part_rows=1)
    assert [column.name for column in plan.columns] == ["name", "note"]
    assert read_all(text, plan) == ([["Smith, Jo", "two\r\nlines"], ["Ann", 'says "hi"']], [])


def test_faults_carry_the_line_they_begin_on_in_whichever_part_they_are() -> None:
    text = 'id,when\n1,2026-01-01\n\n2,"2026-01-02"\n3\n"four",2026-01-04\n5,2026-01-05\n6,2026-01-06,x\n'
    text += "7,2026-01-07\n8,x\ufffd\n"
    for part_rows in (1, 2, 500):
        plan = plan_of(text, part_rows=part_rows)
        assert [column.type for column in plan.columns] == ["integer", "date"]
        rows, faults = read_all(text, plan)
        assert [row[0] for row in rows] == [1, 2, 5, 7]
        assert faults == [
            Fault(5, "must have 2 columns, got 1"),
            Fault(6, "column 'id' must be an integer, got 'four'"),
            Fault(8, "must have 2 columns, got 3"),
            Fault(10, "must be UTF-8 text, got other bytes (bad encoding)"),
        ]


def test_a_line_with_a_bad_quote_costs_that_line_only() -> None:
    text = 'a,b\n1,2\n"x"y,2\n3,4\n5,6\n'
    rows, faults = read_all(text, plan_of(text))
    assert rows == [[1, 2], [3, 4], [5, 6]]
    assert [fault.line for fault in faults] == [3]
    assert "must be doubled" in faults[0].reason


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    text = "\n".join(delimiter.join(cells) for cells in (["city", "size"], ["Rome", "1,5"], ["Oslo", "2,5"]))
    if delimiter == ",":
        text = "city,size\nRome,1\nOslo;x,2\n"
    assert plan_of(text).delimiter == delimiter


@pytest.mark.parametrize(
    ("text", "has_header"),
    [
        ("id,name\n1,x\n2,y\n", True),
        ("1,x\n2,y\n", False),
        ("name,town\nAnn,Rome\nBob,Oslo\n", True),
        ("Ann,Rome\nBob,Oslo\nAnn,Rome\n", False),
        ("id,,name\n1,2,x\n", True),
    ],
)
def test_a_header_is_told_from_a_row(text: str, has_header: bool) -> None:
    plan = plan_of(text)
    assert plan.has_header is has_header
    assert all(column.name for column in plan.columns)


def test_json_lines_are_read_with_their_own_types() -> None:
    text = '{"id": 1, "zip": "0123", "tags": ["a"]}\n{"id": 2, "zip": "9"}\n{bad\n[1]\n'
    text += '{"id": "3", "zip": "1"}\n{"id": 4}\n{"id": 5}\n'
    plan = plan_of(text, part_rows=2)
    assert [(column.name, column.type) for column in plan.columns] == [
        ("id", "integer"),
        ("zip", "text"),
        ("tags", "text"),
    ]
    rows, faults = read_all(text, plan)
    assert rows == [[1, "0123", '["a"]'], [2, "9", None], [4, None, None], [5, None, None]]
    assert [fault.line for fault in faults] == [3, 4, 5]
    assert faults[1].reason == "must be a JSON object, got list"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "must not be empty"),
        ("\ufeff \n\n", 1, "must not be empty"),
        ("a,b\n", 1, "only a header line"),
        ('a,b\n1,2\n3,"four\n5,6\n', 3, "must end with a quote"),
        ("a,b\n1,2\n3," + "x" * 140_000 + "\n", 3, "must be at most 131072 characters long"),
        ("a\0\0b\0\0\n", 1, "UTF-16"),
        ('[{"a": 1}]', 1, "one object per line"),
        ("x,x\n1,2\n", 1, "column names must differ"),
        ("a,b,c\n1,2\n3,4\n", 1, "the header must have the 2 columns"),
        ("a\n" + "\n".join(",".join("x" * n) for n in range(2, 12)), 1, "same number of columns"),
        (",".join(["1"] * 501), 1, "at most 500 columns"),
    ],
)
def test_a_text_that_is_no_table_is_refused_with_what_to_do(text: str, line: int, problem: str) -> None:
    with pytest.raises(TableMalformed, match=problem) as caught:
        plan_of(text)
    assert caught.value.line == line


def test_parts_stay_small_whatever_the_rows_are() -> None:
    text = "a,b\n" + "".join(f"{n},{'x' * 1_000}\n" for n in range(1_000))
    plan = plan_of(text, part_rows=5_000)
    assert max(part.end - part.start for part in plan.parts) <= 128 * 1024
    assert sum(part.rows for part in plan.parts) == 1_000


def test_a_table_that_would_make_too_many_parts_is_refused() -> None:
    text = "n\n" + "1\n" * 10_001
    with pytest.raises(TableMalformed, match=r"at most 10000 batches, got 10001 of 1 rows; raise chunk_rows"):
        plan_of(text, part_rows=1)
    assert len(plan_of(text, part_rows=2).parts) == 5_001


@given(
    st.lists(st.tuples(st.integers(-1000, 1000), st.text('ab,"\n\r;é ', max_size=8)), min_size=1, max_size=30),
    st.integers(1, 10),
)
def test_no_row_is_lost_or_doubled_wherever_the_text_is_cut(pairs: list[tuple[int, str]], part_rows: int) -> None:
    lines = ["number,words"] + [f'{number},"{words.replace(chr(34), chr(34) * 2)}"' for number, words in pairs]
    text = "\n".join(lines) + "\n"
    plan = plan_of(text, delimiter=",", part_rows=part_rows)
    rows, faults = read_all(text, plan)
    assert not faults
    assert [(row[0], row[1] or "") for row in rows] == [(n, words if words.strip() else "") for n, words in pairs]
    assert sum(part.rows for part in plan.parts) == len(pairs) == plan.rows


@given(st.text(max_size=200))
def test_any_text_gives_a_plan_or_a_typed_error(text: str) -> None:
    try:
        plan = plan_of(text, part_rows=3)
    except TableMalformed:
        return
    rows, faults = read_all(text, plan)
    assert len(rows) + len(faults) == plan.rows


def test_a_profile_tells_each_columns_range_and_gaps() -> None:
    text = "n,city\n1,Rome\n5,Oslo\n,Rome\n"
    plan = plan_of(text)
    first, second = profile_columns(plan.columns, read_all(text, plan)[0])
    assert (first.type, first.min, first.max, first.distinct, first.nulls) == ("integer", 1, 5, 2, 1)
    assert (second.min, second.max, second.distinct, second.nulls) == ("Oslo", "Rome", 2, 0)
