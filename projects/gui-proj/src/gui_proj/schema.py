"""Reads a JSON Schema as a tree of form fields: what to ask, not yet how it looks."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

type Json = Any
type JsonSchema = Mapping[str, Json]

DEEPEST_FIELD: Final = 6  # a schema may refer to itself; below this a field is asked for as JSON text


class Missing(enum.Enum):
    """The one value that says "nothing was given", because null is a value."""

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING


class Kind(enum.Enum):
    """How a value is asked for."""

    TEXT = "text"
    MULTILINE = "multiline"
    FILE = "file"
    NUMBER = "number"
    INTEGER = "integer"
    SCALAR = "scalar"  # text that becomes a number where it reads as one
    BOOLEAN = "boolean"
    CHOICE = "choice"
    CHOICES = "choices"
    CONSTANT = "constant"
    NOTHING = "nothing"
    OBJECT = "object"
    ARRAY = "array"
    ALTERNATIVES = "alternatives"
    JSON = "json"


PLAIN_KINDS: Final = {
    "number": Kind.NUMBER,
    "integer": Kind.INTEGER,
    "boolean": Kind.BOOLEAN,
    "null": Kind.NOTHING,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One question of the form; containers carry further fields."""

    path: tuple[str, ...]
    kind: Kind
    label: str
    schema: JsonSchema
    required: bool = True
    nullable: bool = False
    fields: tuple["Field", ...] = ()
    reader: "SchemaReader | None" = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        """The last segment of the path: a property's name or an item's number."""
        return self.path[-1] if self.path else ""

    @property
    def pointer(self) -> str:
        """The JSON Pointer (RFC 6901) of the value, as the AppService names it in an error."""
        return "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in self.path)

    @property
    def name(self) -> str:
        """The name of the control in the HTML form."""
        return "input" + self.pointer

    @property
    def description(self) -> str:
        return str(self.schema.get("description", ""))

    @property
    def default(self) -> Json | Missing:
        return self.schema.get("default", MISSING)

    @property
    def choices(self) -> list[Json]:
        return list(self.schema.get("enum", ()))

    def item(self, index: int) -> "Field":
        """The field of one item of an array."""
        assert self.reader is not None  # noqa: S101 - an array is only ever made by a reader
        return self.reader.item_field(self, index)


def read_schema(schema: JsonSchema | None) -> Field:
    """The root field of a workflow's input schema; a workflow without input has a field of kind NOTHING."""
    if not schema or schema.get("type") == "null":
        return Field((), Kind.NOTHING, "", schema or {})
    return SchemaReader(schema).field(schema, ())


def humanise(name: str) -> str:
    """`card_number` and `Card Number` read as "Card number"; words of its author stay as they are."""
    words = name.replace("_", " ").replace("-", " ").strip()
    if words.istitle() or words.islower():
        words = words.lower()
        words = words[:1].upper() + words[1:]
    return words or name


def singular(label: str) -> str:
    """One of "Lines" is a "Line"; good enough for a label."""
    return label[:-1] if label.endswith("s") and not label.endswith("ss") else label or "Item"


def example(asked: Field) -> Json:
    """A value to start from: defaults, first choices, empty texts."""
    if asked.default is not MISSING:
        return asked.default
    if asked.kind is Kind.OBJECT:
        given = [each for each in asked.fields if each.required or each.default is not MISSING]
        return {each.key: example(each) for each in given}
    if asked.kind is Kind.ARRAY:
        return [example(asked.item(0))]
    if asked.kind is Kind.ALTERNATIVES:
        return example(asked.fields[0])
    words = asked.schema
    choices = asked.choices if asked.kind is Kind.CHOICE else ()
    first = [*words.get("examples", ()), *choices, words.get("const"), words.get("minimum")]
    return next((each for each in first if each is not None), EMPTY.get(asked.kind))


EMPTY: Final[dict[Kind, Json]] = {
    Kind.TEXT: "",
    Kind.MULTILINE: "",
    Kind.FILE: "",
    Kind.SCALAR: "",
    Kind.NUMBER: 0,
    Kind.INTEGER: 0,
    Kind.BOOLEAN: False,
    Kind.CHOICES: [],
}


class SchemaReader:
    """Turns schemas into fields; holds the root so that `$ref` can be followed."""

    def __init__(self, root: JsonSchema) -> None:
        self.root = root

    def field(self, schema: JsonSchema, path: tuple[str, ...], *, required: bool = True) -> Field:
        schema = self._resolved(schema)
        label = humanise(str(schema.get("title") or (path[-1] if path else "")))
        base = Field(path, Kind.JSON, label, schema, required=required, reader=self)
        if len(path) > DEEPEST_FIELD:
            return base
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            return self._branches(base, [self._resolved(branch) for branch in branches])
        types = _types(schema)
        if "null" in types and len(types) > 1:
            return self._nullable(base, {**schema, "type": _one_or_list(types - {"null"})})
        if len(types) > 1 and types <= {"string", "number", "integer"}:
            return replace(base, kind=Kind.SCALAR)
        return self._plain(base, next(iter(types), ""))

    def item_field(self, array: Field, index: int) -> Field:
        prefix = array.schema.get("prefixItems") or ()
        schema = prefix[index] if index < len(prefix) else array.schema.get("items") or {}
        found = self.field(schema if isinstance(schema, Mapping) else {}, (*array.path, str(index)))
        return replace(found, label=f"{singular(array.label)} {index + 1}".strip())

    def _resolved(self, schema: JsonSchema) -> JsonSchema:
        """Follows `$ref` inside the document and merges `allOf`, words beside them winning."""
        for _ in range(20):  # a chain of references that never ends is asked for as JSON
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                break
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**_at(self.root, reference), **beside}
        parts = schema.get("allOf")
        if isinstance(parts, list) and parts:
            merged: dict[str, Json] = {}
            for part in parts:
                _merge(merged, self._resolved(part))
            _merge(merged, {key: value for key, value in schema.items() if key != "allOf"})
            schema = merged
        return schema

    def _branches(self, base: Field, branches: list[JsonSchema]) -> Field:
        words = {key: value for key, value in base.schema.items() if key not in {"anyOf", "oneOf"}}
        given = [branch for branch in branches if branch.get("type") != "null"]
        if len(given) == 1 and len(given) < len(branches):
            return self._nullable(base, {**given[0], **words})
        types = set().union(*(_types(branch) or {"?"} for branch in given))
        if types <= {"string", "number", "integer"} and not any("enum" in branch for branch in given):
            return replace(base, kind=Kind.SCALAR, nullable=len(given) < len(branches))
        return self._alternatives(base, given, nothing=len(given) < len(branches) or not base.required)

    def _nullable(self, base: Field, schema: JsonSchema) -> Field:
        inner = self.field(schema, base.path, required=base.required)
        if inner.kind in {Kind.OBJECT, Kind.ALTERNATIVES, Kind.ARRAY}:
            return self._alternatives(replace(base, schema=schema), [schema], nothing=True)
        return replace(inner, nullable=True, label=base.label or inner.label)

    def _alternatives(self, base: Field, schemas: list[JsonSchema], *, nothing: bool) -> Field:
        fields = [self._plain_branch(base, schema) for schema in schemas]
        if nothing:
            empty = Field(base.path, Kind.NOTHING, "None", {}, required=base.required)
            fields.insert(0, empty)
        return replace(base, kind=Kind.ALTERNATIVES, fields=tuple(fields), nullable=nothing)

    def _plain_branch(self, base: Field, schema: JsonSchema) -> Field:
        label = str(schema.get("title") or humanise(next(iter(sorted(_types(schema))), "value")))
        if schema.get("anyOf") or schema.get("oneOf") or len(_types(schema)) > 1:
            return replace(self.field(schema, base.path), label=label)
        plain = Field(base.path, Kind.JSON, label, schema, reader=self)
        return self._plain(plain, next(iter(_types(schema)), ""))

    def _plain(self, base: Field, type_name: str) -> Field:
        schema = base.schema
        if "const" in schema or "enum" in schema:
            return replace(base, kind=Kind.CONSTANT if "const" in schema else Kind.CHOICE)
        if type_name == "array":
            return self._array(base)
        if type_name == "object":
            return self._object(base)
        if type_name == "string":
            return replace(base, kind=_text_kind(schema))
        return replace(base, kind=PLAIN_KINDS.get(type_name, Kind.JSON))

    def _array(self, base: Field) -> Field:
        items = base.schema.get("items")
        resolved = self._resolved(items) if isinstance(items, Mapping) else {}
        if "enum" in resolved:
            return replace(base, kind=Kind.CHOICES, schema={**base.schema, "enum": resolved["enum"]})
        if not resolved and not base.schema.get("prefixItems"):
            return base
        return replace(base, kind=Kind.ARRAY)

    def _object(self, base: Field) -> Field:
        properties = base.schema.get("properties")
        if not properties:
            return base  # a free map has no names to ask for
        required = set(base.schema.get("required", ()))
        fields = tuple(
            self._property(schema, (*base.path, name), required=name in required) for name, schema in properties.items()
        )
        return replace(base, kind=Kind.OBJECT, fields=fields)

    def _property(self, schema: Json, path: tuple[str, ...], *, required: bool) -> Field:
        found = self.field(schema if isinstance(schema, Mapping) else {}, path, required=required)
        label = humanise(str(schema.get("title") or path[-1]) if isinstance(schema, Mapping) else path[-1])
        if found.kind is Kind.OBJECT and not required:
            # an object that may be left out is a choice between nothing and its fields
            return replace(self._alternatives(found, [found.schema], nothing=True), label=label)
        return replace(found, label=label)


def _types(schema: JsonSchema) -> set[str]:
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return set(named)
    if "properties" in schema:
        return {"object"}
    if "items" in schema or "prefixItems" in schema:
        return {"array"}
    return set()


def _one_or_list(types: set[str]) -> str | list[str]:
    return next(iter(types)) if len(types) == 1 else sorted(types)


def _text_kind(schema: JsonSchema) -> Kind:
    if "contentMediaType" in schema or schema.get("x-file"):
        return Kind.FILE
    if schema.get("format") in {"textarea", "multiline"} or schema.get("x-multiline"):
        return Kind.MULTILINE
    return Kind.TEXT


def _at(root: JsonSchema, reference: str) -> JsonSchema:
    """The schema a `#/…` reference points to; anything else says nothing and is asked for as JSON."""
    if not reference.startswith("#"):
        return {}
    found: Json = root
    for segment in reference.lstrip("#").strip("/").split("/"):
        name = segment.replace("~1", "/").replace("~0", "~")
        if segment and isinstance(found, Mapping):
            found = found.get(name, {})
    return found if isinstance(found, Mapping) else {}


def _merge(into: dict[str, Json], schema: JsonSchema) -> None:
    for key, value in schema.items():
        if key == "properties":
            into[key] = {**into.get(key, {}), **value}
        elif key == "required":
            into[key] = [*into.get(key, []), *value]
        else:
            into[key] = value
