"""A JSON Schema becomes a form, and what is typed into the form becomes JSON of the schema's types."""

from decimal import Decimal
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from gui_proj.form_fields import FormView
from gui_proj.form_input import as_number, read_form
from gui_proj.schema import MISSING, Kind, example, humanise, read_schema


class Form(dict):
    """A submitted form, as Starlette's FormData offers it."""

    def getlist(self, key):
        return self.get(key, [])


class Line(BaseModel):
    sku: str
    quantity: int = Field(default=1, ge=1)


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Invoice(BaseModel):
    kind: Literal["invoice"] = "invoice"
    days: int = 30


class Order(BaseModel):
    customer: str = Field(description="Who gets it.")
    lines: list[Line]
    payment: Card | Invoice
    gift: Line | None = None
    note: str | None = None
    express: bool = False
    price: Decimal = Decimal(3)
    weight: float | None = None
    speed: Literal["slow", "fast"] = "slow"
    extras: list[Literal["wrap", "insure"]] = []
    labels: dict[str, int] = {}


ORDER = read_schema(Order.model_json_schema())


def field_of(name):
    return next(each for each in ORDER.fields if each.key == name)


def html_of(schema, value=MISSING, errors=None):
    return str(FormView(errors or {}).render(read_schema(schema), value))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("customer", Kind.TEXT),
        ("lines", Kind.ARRAY),
        ("payment", Kind.ALTERNATIVES),
        ("gift", Kind.ALTERNATIVES),
        ("note", Kind.TEXT),
        ("express", Kind.BOOLEAN),
        ("price", Kind.SCALAR),
        ("weight", Kind.NUMBER),
        ("speed", Kind.CHOICE),
        ("extras", Kind.CHOICES),
        ("labels", Kind.JSON),
    ],
)
def test_each_type_is_asked_for_in_its_own_way(name, kind):
    assert field_of(name).kind is kind


def test_a_reference_is_followed_into_the_definitions():
    line = field_of("lines").item(0)
    assert [inner.key for inner in line.fields] == ["sku", "quantity"]
    assert line.fields[0].pointer == "/lines/0/sku"


def test_a_schema_that_refers_to_itself_ends_in_json_text():
    node = {"type": "object", "properties": {"below": {"$ref": "#/$defs/N"}}, "required": ["below"]}
    found = read_schema({"$ref": "#/$defs/N", "$defs": {"N": node}})
    while found.kind is Kind.OBJECT:
        found = found.fields[0]
    assert found.kind is Kind.JSON


def test_a_reference_that_leads_nowhere_is_asked_for_as_json():
    assert read_schema({"$ref": "https://elsewhere.example/schema"}).kind is Kind.JSON
    assert read_schema({"$ref": "#/$defs/missing"}).kind is Kind.JSON
    assert read_schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}).kind is Kind.JSON


def test_a_workflow_without_input_asks_nothing():
    assert read_schema(None).kind is Kind.NOTHING
    assert read_form(read_schema(None), Form()).value is MISSING


def test_the_whole_form_is_read_back_with_its_types():
    form = Form(
        {
            "input/customer": ["ada@example.org"],
            "input/lines": ["0", "3"],
            "input/lines/0/sku": ["tea"],
            "input/lines/0/quantity": ["2"],
            "input/lines/3/sku": ["cup"],
            "input/lines/3/quantity": [""],
            "input/payment?": ["1"],
            "input/payment/days": ["14"],
            "input/gift?": ["0"],
            "input/note": [""],
            "input/express": ["true"],
            "input/price": ["3.50"],
            "input/weight": ["1e2"],
            "input/speed": ['"fast"'],
            "input/extras": ['"insure"'],
            "input/labels": ['{"a": 1}'],
        }
    )
    read = read_form(ORDER, form)
    assert read.errors == {}
    assert read.value == {
        "customer": "ada@example.org",
        "lines": [{"sku": "tea", "quantity": 2}, {"sku": "cup"}],
        "payment": {"kind": "invoice", "days": 14},
        "express": True,
        "price": 3.5,
        "weight": 100.0,
        "speed": "fast",
        "extras": ["insure"],
        "labels": {"a": 1},
    }
    assert Order.model_validate(read.value).payment == Invoice(days=14)


def test_an_empty_box_means_false_not_the_default():
    schema = {"type": "object", "properties": {"header": {"type": "boolean", "default": True}}}
    assert read_form(read_schema(schema), Form()).value == {"header": False}


def test_a_cleared_default_is_null_where_null_is_allowed():
    schema = {"type": "object", "properties": {"note": {"type": ["string", "null"], "default": "hello"}}}
    assert read_form(read_schema(schema), Form({"input/note": [""]})).value == {"note": None}


@pytest.mark.parametrize(
    ("schema", "typed", "words"),
    [
        ({"type": "integer"}, "2.5", "whole number"),
        ({"type": "integer"}, "two", "whole number"),
        ({"type": "number"}, "1e999", "number"),
        ({"type": "object"}, "{", "JSON"),
    ],
)
def test_what_cannot_be_read_is_named_at_its_field_and_kept(schema, typed, words):
    root = read_schema({"type": "object", "properties": {"it": schema}})
    read = read_form(root, Form({"input/it": [typed]}))
    assert words in read.errors["/it"]
    assert read.value == {"it": typed}
    assert "2.5" not in typed or "2.5" in str(FormView(read.errors).render(root, read.value))


def test_an_uploaded_file_wins_over_the_text_and_may_have_a_byte_order_mark():
    root = read_schema(
        {"type": "object", "properties": {"content": {"type": "string", "contentMediaType": "text/csv"}}}
    )
    read = read_form(root, Form({"input/content": ["typed"]}), {"input/content": b"\xef\xbb\xbfa,b\r\n1,2"})
    assert read.value == {"content": "a,b\r\n1,2"}


def test_a_file_that_is_no_text_is_refused_at_its_field():
    root = read_schema({"type": "object", "properties": {"content": {"type": "string", "x-file": True}}})
    read = read_form(root, Form(), {"input/content": b"ab\xff"})
    assert read.errors == {"/content": "The file must be UTF-8 text; byte 2 is not."}


def test_a_file_may_be_sent_as_base64():
    schema = {"type": "string", "contentMediaType": "image/png", "contentEncoding": "base64"}
    root = read_schema({"type": "object", "properties": {"picture": schema}})
    assert read_form(root, Form(), {"input/picture": b"\x00\xff"}).value == {"picture": "AP8="}


def test_every_control_has_a_label_a_name_and_its_description():
    html = str(FormView().render(ORDER))
    assert '<label for="input/customer">Customer</label>' in html
    assert 'aria-describedby="input/customer-hint"' in html
    assert '<p class="hint" id="input/customer-hint">Who gets it.</p>' in html


def test_an_error_stands_at_its_field_and_is_announced_with_it():
    html = html_of(
        {"type": "object", "properties": {"age": {"type": "integer"}}}, {"age": "x"}, {"/age": "Must be a number."}
    )
    assert '<p class="error" id="input/age-error">Must be a number.</p>' in html
    assert 'aria-invalid="true"' in html


def test_what_a_person_or_a_schema_says_is_escaped():
    html = html_of(
        {"type": "object", "properties": {"x": {"type": "string", "description": "<script>alert(1)</script>"}}},
        {"x": '"><script>alert(2)</script>'},
    )
    assert "<script>" not in html


def test_the_alternative_that_fits_the_value_is_chosen():
    html = str(FormView().render(field_of("payment"), {"kind": "invoice", "days": 7}))
    assert 'name="input/payment?" value="1" checked' in html
    assert 'value="7"' in html


def test_an_array_shows_as_many_items_as_it_must_have():
    html = html_of(
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "minItems": 2}}}
    )
    assert 'name="input/a/1"' in html
    assert 'name="_remove" value="/a/0"' in html


def test_an_example_satisfies_the_schema_it_is_made_from():
    made = example(ORDER)
    assert made["payment"] == {"kind": "card", "number": ""}
    assert Order.model_validate(made)


def test_names_read_as_words():
    assert humanise("card_number") == "Card number"
    assert humanise("Card Number") == "Card number"
    assert humanise("SKU") == "SKU"


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "9" * 5000, "", "0x10"])
def test_only_what_json_calls_a_number_is_one(text):
    assert as_number(text) is None
