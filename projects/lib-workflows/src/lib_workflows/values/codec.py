"""Payloads as JSON text: what goes into the history is exactly what a workflow sees, live and replayed.

The seam for encryption and for storing large payloads elsewhere is `Codec`: every payload passes through it. A payload
names its version: version 1 is the JSON text itself, any later one begins with `MARK` and its number, which no JSON
does. So a release that is older than its database refuses what it cannot read, and says so.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from lib_events.event import LEVELS
from lib_workflows.errors import DefinitionError, PayloadInvalid, PayloadTooLarge, PayloadVersionUnknown

MARK = "@"
LIMIT_BYTES = 4 * 1024 * 1024
# Values of exactly these declared types are the same before and after the JSON: no need to decode them again.
PLAIN_TYPES = (str, int, bool)
BIG = 1 << 62
NOTHING_TYPES = (None, type(None), Any)
LONG_NUMBER = b"0" * 4_300  # the parser takes no more digits
AS_ZEROS = bytes(ord("0") if chr(byte).isdecimal() else ord(" ") for byte in range(256))
# JSON has no words for NaN and infinity: as null they would come back as nothing, or not at all.
FINITE_OR_TEXT = ConfigDict(ser_json_inf_nan="strings")


class Codec[T]:
    """Encodes and decodes values of one declared type; built on first use, so forward references resolve."""

    def __init__(self, declared: Any, what: str) -> None:
        self.declared = declared
        self.what = what
        self._schemas: dict[str, dict[str, Any]] = {}

    @cached_property
    def adapter(self) -> TypeAdapter[T]:
        """Validates and dumps."""
        try:
            return _adapter(self.declared)
        except Exception as error:
            raise DefinitionError(
                f"{self.what} must have a type pydantic can describe, got {self.declared!r}: {error}"
            ) from error

    @cached_property
    def _is_bare(self) -> bool:
        """Whether only what can be read again is written, and not what models compute that refuse to be given it."""
        return _refuses_its_own(self.adapter.core_schema)

    def encode(self, value: T) -> str:
        """Return `value` as JSON text; raises `PayloadInvalid` or `PayloadTooLarge`."""
        kind = type(value)
        if kind is self.declared and kind is int:
            return str(value) if -BIG < value < BIG else check_readable(self._dump(value), self.what)  # type: ignore[operator]
        if value is None and self.declared in NOTHING_TYPES:
            return "null"
        return check_readable(self._dump(value), self.what)

    def _dump(self, value: T) -> str:
        try:
            text = self.adapter.dump_json(value, warnings="error", round_trip=self._is_bare).decode()
        except (ValueError, TypeError, RecursionError) as error:  # also what the types' own serializers raise
            raise PayloadInvalid(self.what, str(error)) from error
        return within_limit(text, self.what)

    def decode(self, text: str) -> T:
        """Read JSON text, whose fields have their names or aliases; raises `PayloadInvalid` naming the field."""
        if text == "null" and self.declared in NOTHING_TYPES:
            return typing.cast("T", None)
        try:
            return self.adapter.validate_json(text, by_alias=True, by_name=True)
        except ValidationError as error:
            if text.startswith(MARK):
                raise PayloadVersionUnknown(self.what, text[1:].partition(":")[0]) from error
            raise invalid(self.what, error) from error

    def settle(self, value: T) -> tuple[str, T]:
        """Encode `value` and return the text with the value as a replay would see it."""
        text = self.encode(value)
        if value is None or (type(value) is self.declared and type(value) in PLAIN_TYPES):
            return text, value
        return text, self.decode(text)

    def validate(self, value: Any) -> T:
        """Check a JSON-able value against the type; raises `PayloadInvalid` naming the field."""
        try:
            return self.adapter.validate_json(to_json(value), by_alias=True, by_name=True)
        except ValidationError as error:
            raise invalid(self.what, error) from error

    def schema(self, mode: typing.Literal["validation", "serialization"] = "validation") -> dict[str, Any]:
        """The JSON Schema of the type: always the same object, not to be changed."""
        if mode not in self._schemas:
            by_alias, written = mode == "validation", "validation" if self._is_bare else mode
            self._schemas[mode] = self.adapter.json_schema(mode=written, by_alias=by_alias)
        return self._schemas[mode]


def _adapter(declared: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(declared, config=FINITE_OR_TEXT)
    except PydanticUserError:  # a model says itself how it is written
        return TypeAdapter(declared)


def _refuses_its_own(schema: Any, *, forbids: bool = False) -> bool:
    """Whether somewhere in a type of pydantic a model computes fields and forbids what is none of its own, or a text of
    JSON is kept as what it says: as it is written it could not be read."""
    if isinstance(schema, list | tuple):
        return any(_refuses_its_own(part, forbids=forbids) for part in schema)
    if not isinstance(schema, Mapping):
        return False
    if schema.get("type") == "json" or (forbids and schema.get("computed_fields")):
        return True
    if schema.get("type") in ("model", "dataclass"):
        forbids = schema.get("config", {}).get("extra_fields_behavior") == "forbid"
    return any(_refuses_its_own(part, forbids=forbids) for name, part in schema.items() if name != "metadata")


class ArgumentsCodec:
    """Encodes the positional arguments of a step as a JSON list, for people to read in the history."""

    def __init__(self, codecs: tuple[Codec[Any], ...], rest: Codec[Any] | None, what: str) -> None:
        self._codecs = codecs
        self._rest = rest
        self._what = what

    def encode(self, args: tuple[Any, ...]) -> str:
        """Return `args` as a JSON list."""
        codecs = self._codecs
        if len(args) == len(codecs) == 1:
            return f"[{codecs[0].encode(args[0])}]"
        if len(args) > len(codecs) and self._rest is not None:
            codecs = codecs + (self._rest,) * (len(args) - len(codecs))
        texts = [codec.encode(value) for codec, value in zip(codecs, args, strict=False)]
        return within_limit(f"[{','.join(texts)}]", f"arguments of {self._what}")


def within_limit(text: str, what: str, limit: int = LIMIT_BYTES) -> str:
    """Return `text`; raises `PayloadTooLarge`."""
    if len(text) > limit // 4 and (size := len(text.encode())) > limit:
        raise PayloadTooLarge(what, size, limit)
    return text


def invalid(what: str, error: ValidationError) -> PayloadInvalid:
    """Name the first field at fault."""
    first = error.errors(include_url=False, include_input=False)[0]
    return PayloadInvalid(what, first["msg"], field=".".join(str(part) for part in first["loc"]))


def check_readable(text: str, what: str) -> str:
    """Return JSON text; raises `PayloadInvalid` for what is written and could not be read: numbers of thousands of
    digits, and more levels than the parser goes down."""
    is_deep = len(text) > LEVELS and text.count("[") + text.count("{") >= LEVELS
    if is_deep or _has_long_number(text):
        try:
            from_json(text)
        except ValueError as error:
            raise PayloadInvalid(what, f"must have numbers and levels that can be read again: {error}") from error
    return text


def _has_long_number(text: str) -> bool:
    """Whether a number in it may have too many digits; a pattern takes a hundred times as long to look for one."""
    return len(text) >= len(LONG_NUMBER) and LONG_NUMBER in text.encode().translate(AS_ZEROS)


def encode_json(value: Any) -> str:
    """Any JSON-able value as text."""
    return to_json(value).decode()


def encode_given(value: Any, what: str) -> str:
    """A value that somebody gives without a declared type; raises `PayloadInvalid` or `PayloadTooLarge`."""
    try:
        return check_readable(within_limit(encode_json(value), what), what)
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, PayloadTooLarge | PayloadInvalid):
            raise
        raise PayloadInvalid(what, str(error)) from error


def canonical_json(value: Any) -> str:
    """One text for JSON values that are equal: the fields of objects in order, and 1 for 1.0."""
    return encode_json(_in_order(value))


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_order(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def decode_json(text: str) -> Any:
    """JSON text as plain values."""
    return from_json(text)


class Signature:
    """The types of a function's positional parameters and of what it returns."""

    def __init__(self, function: Callable[..., Any], what: str) -> None:
        self.function = function
        self.what = what
        self.parameters = positional_parameters(function, what)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(written_function(self.function), include_extras=True)
        except NameError as error:
            raise DefinitionError(
                f"annotations of {self.what} must name types its module knows, got {error}; import them"
            ) from error

    @property
    def is_known(self) -> bool:
        """Whether what its annotations name is there already; a module may come to it later."""
        try:
            self._hints  # noqa: B018 - read now
        except DefinitionError:
            return False
        return True

    def argument(self, parameter: inspect.Parameter) -> Codec[Any]:
        """The codec of one parameter."""
        return Codec(self._hints.get(parameter.name, Any), f"{self.what}({parameter.name})")

    @cached_property
    def arguments(self) -> ArgumentsCodec:
        """The codec of all arguments together."""
        plain = tuple(self.argument(p) for p in self.parameters if p.kind is not p.VAR_POSITIONAL)
        rest = [self.argument(p) for p in self.parameters if p.kind is p.VAR_POSITIONAL]
        return ArgumentsCodec(plain, rest[0] if rest else None, self.what)

    @cached_property
    def result(self) -> Codec[Any]:
        """The codec of the returned value."""
        return Codec(self._hints.get("return", Any), f"result of {self.what}")

    def check(self) -> None:
        """Raise `DefinitionError` for a result that could not be kept: before the function has had its effect."""
        self.result.adapter  # noqa: B018 - made now

    def drop_first(self) -> "Signature":
        """Forget the first parameter, which the engine fills in (a context or a connection)."""
        self.parameters = self.parameters[1:]
        return self


def written_function(function: Callable[..., Any]) -> Any:
    """The function that somebody has written, behind a part of one or an object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def positional_parameters(function: Callable[..., Any], what: str) -> list[inspect.Parameter]:
    """The parameters of `function`, all positional; raises `DefinitionError` for any other."""
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise DefinitionError(
                f"{what} must take positional parameters only, got {parameter}; keywords of ctx.step are the engine's"
            )
    return parameters
