"""Whether a JSON Schema may follow another one: pure comparison, from which the rule for event types follows.

Two kinds of reader meet events that were written by another release, and both must go on working:

* *Old events, new code.* The log keeps events, and look-back, replays and new subscriptions read them. So every
  document the old schema describes must fit the new one: nothing may become required, narrower or another thing.
* *New events, old code.* Other services, and processes of this one that are not yet restarted, run the release
  before. So every document the new schema describes must fit the old one: nothing may go away, become optional or
  wider; an enumeration that gains a value is wider, too.

Both together leave one change: a field of its own name, which the new schema does not require (old events lack it)
and which the old schema neither describes nor forbids (old readers step over it). Where the old schema describes any
further field, as `dict[str, …]` and `extra="allow"` do, old events may carry that name already with another value,
and where it forbids them, as `extra="forbid"` does, old readers refuse it. What only explains may always change.

Writers write what their schema names, so a field that appears in one branch of a union leaves the others alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

type Schema = Mapping[str, Any] | bool

# They explain, they do not decide what fits. `discriminator` is OpenAPI's hint; each branch says its constant itself.
ANNOTATIONS = frozenset(
    (
        *("$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description"),
        *("discriminator", "example", "examples", "readOnly", "title", "writeOnly"),
    )
)
OBJECT = frozenset(("properties", "required"))
BRANCHES = ("anyOf", "oneOf", "allOf", "prefixItems")
NESTED = {"items": "[]", "additionalProperties": ".*", "propertyNames": ".*"}
# With any of these, a further field is described, counted or forbidden.
CLOSED = frozenset(("additionalProperties", "maxProperties", "patternProperties", "propertyNames"))
UNORDERED = frozenset(("enum", "type"))


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """A change that some reader could not live with; `field` names where, such as `data.lines[].sku`."""

    field: str
    change: str

    def __str__(self) -> str:
        return f"{self.field} {self.change}"


def incompatibilities(old: Schema, new: Schema, *, field: str = "data") -> list[Incompatibility]:
    """Return every change from `old` to `new` that is more than added optional fields and other explanations."""
    return list(_Comparison(old, new).compare(old, new, field))


class _Comparison:
    """Compares two documents; knows their roots, to follow references, and what it is comparing already."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old_root = old
        self._new_root = new
        self._compared: set[tuple[bytes, bytes]] = set()

    def compare(self, old: Schema, new: Schema, field: str) -> Iterator[Incompatibility]:
        if _is_reference(old) or _is_reference(new):
            pair = (to_json(old), to_json(new))
            if pair in self._compared:
                return  # a recursive model: this pair is being compared, or has been
            self._compared.add(pair)
        old, new = _open(old, self._old_root), _open(new, self._new_root)
        is_object = _is_object(old) and _is_object(new)
        if is_object:
            yield from self._compare_fields(old, new, field)
        for keyword in sorted(old.keys() | new.keys()):
            if keyword not in OBJECT or not is_object:
                yield from self._compare_keyword(keyword, old, new, field)

    def _compare_keyword(
        self, keyword: str, old: Mapping[str, Any], new: Mapping[str, Any], field: str
    ) -> Iterator[Incompatibility]:
        if keyword not in old or keyword not in new:
            value, word = (new[keyword], "has gained") if keyword in new else (old[keyword], "has lost")
            yield Incompatibility(field, f"{word} {keyword} {_text(value)}")
            return
        before, after = old[keyword], new[keyword]
        if keyword in BRANCHES:
            yield from self._compare_branches(keyword, before, after, field)
        elif keyword in NESTED:
            yield from self.compare(before, after, field + NESTED[keyword])
        elif keyword == "patternProperties" and before.keys() == after.keys():
            for pattern in before:
                yield from self.compare(before[pattern], after[pattern], f"{field}.*")
        elif before != after:
            yield Incompatibility(field, f"has changed {keyword} from {_text(before)} to {_text(after)}")

    def _compare_fields(self, old: Mapping[str, Any], new: Mapping[str, Any], field: str) -> Iterator[Incompatibility]:
        before, after = old.get("properties", {}), new.get("properties", {})
        was_required, is_required = set(old.get("required", ())), set(new.get("required", ()))
        for name in before:
            where = f"{field}.{name}"
            if name not in after:
                yield Incompatibility(where, "is gone, and older code reads it")
                continue
            if (name in was_required) != (name in is_required):
                change = "has become required" if name in is_required else "is no longer required"
                yield Incompatibility(where, f"{change}, and {_who_breaks(is_required=name in is_required)}")
            yield from self.compare(before[name], after[name], where)
        for name in after.keys() - before.keys():
            yield from self._check_added(name, old, field, is_required=name in is_required)

    def _check_added(
        self, name: str, old: Mapping[str, Any], field: str, *, is_required: bool
    ) -> Iterator[Incompatibility]:
        where = f"{field}.{name}"
        if is_required:
            yield Incompatibility(where, f"is new and required, and {_who_breaks(is_required=True)}")
        if old.get("additionalProperties") is False:
            yield Incompatibility(where, "is new, and older code refuses fields it does not know")
        elif CLOSED & old.keys():
            yield Incompatibility(where, "is new, and where any field may come older events may have it differently")

    def _compare_branches(
        self, keyword: str, old: Sequence[Schema], new: Sequence[Schema], field: str
    ) -> Iterator[Incompatibility]:
        if len(old) != len(new):
            yield Incompatibility(field, f"has changed {keyword} from {len(old)} to {len(new)} kinds of value")
            return
        before, after = list(old), list(new)
        if keyword != "prefixItems":  # the order of alternatives says nothing
            for branch in old:
                follower = next((one for one in after if self._may_follow(branch, one)), None)
                if follower is not None:
                    before.remove(branch)
                    after.remove(follower)
        for branch, other in zip(before, after, strict=True):
            yield from self.compare(branch, other, field)

    def _may_follow(self, old: Schema, new: Schema) -> bool:
        trial = _Comparison(self._old_root, self._new_root)
        trial._compared = set(self._compared)
        return not any(trial.compare(old, new, ""))


def _is_reference(schema: Schema) -> bool:
    return not isinstance(schema, bool) and "$ref" in schema


def _open(schema: Schema, root: Schema) -> Mapping[str, Any]:
    """Follow references and write the same thing the same way: one `enum`, sets in order, no annotations."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    found = dict(schema)
    while "$ref" in found or len(found.get("allOf", ())) == 1:
        target = _resolve(found.pop("$ref"), root) if "$ref" in found else found.pop("allOf")[0]
        found = {**target, **found}
    if "const" in found:
        found["enum"] = [found.pop("const")]
    for keyword in UNORDERED & found.keys():
        if isinstance(found[keyword], list):
            found[keyword] = sorted(found[keyword], key=to_json)
    return {name: value for name, value in found.items() if name not in ANNOTATIONS and not name.startswith("x-")}


def _resolve(reference: str, root: Schema) -> Mapping[str, Any]:
    found: Any = root
    for part in reference.split("/")[1:]:
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return dict(found)


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _who_breaks(*, is_required: bool) -> str:
    return "older events do not have it" if is_required else "older code needs it"


def _text(value: Any) -> str:
    encoded = to_json(value).decode()
    return encoded if len(encoded) <= 80 else f"{encoded[:77]}…"
