"""Which schema may follow which: what passes keeps old and new readers working, what is refused would break one."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from lib_events.contracts.evolution import incompatibilities


class Line(BaseModel):
    sku: str
    quantity: int = 1


class LineWithNote(BaseModel):
    sku: str
    quantity: int = 1
    note: str | None = None


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class TreeWithWeight(BaseModel):
    name: str
    children: list["TreeWithWeight"] = []
    weight: int | None = None


class TreeOfNumbers(BaseModel):
    name: int
    children: list["TreeOfNumbers"] = []


class Cash(BaseModel):
    kind: Literal["cash"]


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class CardWithHolder(Card):
    holder: str = ""


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class ReorderedColour(Enum):
    BLUE = "blue"
    RED = "red"


class MoreColours(Enum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class ClosedWithMore(Closed):
    b: int = 0


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class AnythingWithMore(Anything):
    b: int = 0


@dataclass
class Plain:
    a: int


@dataclass
class PlainWithMore:
    a: int
    b: list[str] = field(default_factory=list)


def schema(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema()


def model(**fields: Any) -> type[BaseModel]:
    return create_model("Model", **fields)


PASSES = {
    "an added optional field": (Line, LineWithNote),
    "one of a dataclass": (Plain, PlainWithMore),
    "one inside a list": (list[Line], list[LineWithNote]),
    "one inside the values of a mapping": (dict[str, Line], dict[str, LineWithNote]),
    "one inside a recursive model": (Tree, TreeWithWeight),
    "one inside an alternative": (Line | int | None, LineWithNote | int | None),
    "one inside a discriminated alternative": (
        Annotated[Cash | Card, Field(discriminator="kind")],
        Annotated[Cash | CardWithHolder, Field(discriminator="kind")],
    ),
    "alternatives in another order": (int | str | Line, Line | str | int),
    "values of an enumeration in another order": (Colour, ReorderedColour),
    "an enumeration spelled as literals": (Colour, Literal["red", "blue"]),
    "another explanation": (
        model(a=(int, Field(title="A", description="x", examples=[1]))),
        model(a=(int, Field(description="y", deprecated=True))),
    ),
    "another default": (model(a=(int, 1)), model(a=(int, 2))),
    "another name of a class": (list[Line], list[create_model("Renamed", sku=(str, ...), quantity=(int, 1))]),
}
REFUSED = {
    "a field that is gone": (LineWithNote, Line, "data.note"),
    "a new required field": (Line, model(sku=(str, ...), quantity=(int, 1), price=(int, ...)), "data.price"),
    "a field that becomes required": (Line, model(sku=(str, ...), quantity=(int, ...)), "data.quantity"),
    "a field that becomes optional": (Line, model(sku=(str, ""), quantity=(int, 1)), "data.sku"),
    "another type": (Line, model(sku=(int, ...), quantity=(int, 1)), "data.sku"),
    "a field that may be null now": (Line, model(sku=(str | None, ...), quantity=(int, 1)), "data.sku"),
    "a narrower bound": (model(a=(int, ...)), model(a=(int, Field(ge=0))), "data.a"),
    "a wider bound": (model(a=(int, Field(ge=0))), model(a=(int, Field(ge=-1))), "data.a"),
    "another format": (model(a=(str, ...)), model(a=(str, Field(json_schema_extra={"format": "email"}))), "data.a"),
    "one more value of an enumeration": (Colour, MoreColours, "data"),
    "another value of a constant": (Literal["a"], Literal["b"], "data"),
    "one more alternative": (int | str, int | str | None, "data"),
    "another alternative": (int | Line, int | LineWithNote | None, "data"),
    "a change inside a list": (list[Line], list[model(sku=(int, ...), quantity=(int, 1))], "data[].sku"),
    "a change inside a mapping": (dict[str, int], dict[str, str], "data.*"),
    "a change of the keys of a mapping": (dict[Colour, int], dict[MoreColours, int], "data.*"),
    "a change inside a tuple": (tuple[int, Line], tuple[int, model(sku=(int, ...), quantity=(int, 1))], "data.sku"),
    "a change inside a recursive model": (Tree, TreeOfNumbers, "data.name"),
    "a change of a discriminated alternative": (
        Annotated[Cash | CardWithHolder, Field(discriminator="kind")],
        Annotated[Cash | Card, Field(discriminator="kind")],
        "data.holder",
    ),
    "a new field where others were forbidden": (Closed, ClosedWithMore, "data.b"),
    "a new field where any other was allowed": (Anything, AnythingWithMore, "data.b"),
    "fields where any were allowed": (dict[str, Any], Plain, "data"),
    "others forbidden from now on": (model(a=(int, ...)), Closed, "data"),
    "anything becomes something": (Any, int, "data"),
}


@pytest.mark.parametrize(("old", "new"), PASSES.values(), ids=PASSES)
def test_a_compatible_change_passes(old, new):
    assert incompatibilities(schema(old), schema(new)) == []


@pytest.mark.parametrize(("old", "new", "where"), REFUSED.values(), ids=REFUSED)
def test_any_other_change_is_refused_naming_the_field(old, new, where):
    found = incompatibilities(schema(old), schema(new))
    assert where in [one.field for one in found], found


def test_every_change_is_named():
    before = model(a=(int, ...), b=(str, ...), c=(int, 1))
    after = model(a=(str, ...), c=(int, ...), d=(int, ...))
    assert sorted(one.field for one in incompatibilities(schema(before), schema(after))) == [
        *("data.a", "data.b", "data.c", "data.d")
    ]


def test_a_change_inside_something_compared_before_is_found_again():
    both = (model(first=(Line, ...), second=(Line, ...)), model(first=(Line, ...), second=(LineWithNote, ...)))
    assert incompatibilities(schema(both[0]), schema(both[1])) == []
    assert incompatibilities(schema(both[1]), schema(both[0])) != []


LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-3, 3)),
    (Annotated[int, Field(ge=0)], st.integers(0, 3)),
    (str, st.text("ab", max_size=2)),
    (Colour, st.sampled_from(["red", "blue"])),
    (MoreColours, st.sampled_from(["red", "blue", "green"])),
    (Line, st.fixed_dictionaries({"sku": st.just("tea"), "quantity": st.integers(0, 2)})),
    (LineWithNote, st.fixed_dictionaries({"sku": st.just("tea"), "note": st.sampled_from([None, "hot"])})),
    (Tree, st.just({"name": "root", "children": [{"name": "leaf", "children": []}]})),
    (TreeWithWeight, st.just({"name": "root", "children": [{"name": "leaf", "children": [], "weight": 3}]})),
    (dict[str, Any], st.just({"b": "x", "note": 5})),
]


def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=2))),
        inner.map(lambda one: (dict[str, one[0]], st.dictionaries(st.sampled_from("xy"), one[1], max_size=2))),
        inner.map(lambda one: (one[0] | None, st.none() | one[1])),
        st.tuples(inner, inner).map(lambda two: (two[0][0] | two[1][0], two[0][1] | two[1][1])),
        st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]).map(list))
        ),
    )


KINDS = st.recursive(st.sampled_from(LEAVES), nest, max_leaves=3)
FIELDS = st.dictionaries(st.sampled_from("abc"), st.tuples(KINDS, st.booleans()), max_size=3)


def model_of(fields: Any) -> type[BaseModel]:
    return create_model("Model", **{name: (kind, ... if must else None) for name, ((kind, _), must) in fields.items()})


def documents_of(fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """What a writer of the model writes."""
    parts = [
        {name: values for name, ((_, values), must) in fields.items() if must is wanted} for wanted in (True, False)
    ]
    return st.fixed_dictionaries(parts[0], optional=parts[1])


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_passes_lets_each_release_read_what_the_other_wrote(data):
    before = data.draw(FIELDS, "before")
    after = dict(before) | data.draw(FIELDS, "changed") if data.draw(st.booleans()) else data.draw(FIELDS, "after")
    old, new = model_of(before), model_of(after)
    if incompatibilities(old.model_json_schema(), new.model_json_schema()):
        return
    event("passes" if before.keys() == after.keys() else "passes with more fields")
    written_before, written_after = data.draw(documents_of(before)), data.draw(documents_of(after))
    new.model_validate(written_before)
    old.model_validate(written_after)
    jsonschema.validate(written_before, new.model_json_schema())
    jsonschema.validate(written_after, old.model_json_schema())


@given(FIELDS)
@settings(max_examples=50, deadline=None)
def test_nothing_changed_passes(fields):
    assert incompatibilities(model_of(fields).model_json_schema(), model_of(fields).model_json_schema()) == []
