"""What is stored is JSON and nothing else; what is no data, or too much of it, is refused wherever it is given."""

import pickle
import threading
from math import inf, isnan, nan
from typing import Any

import pytest
from flows import doubling
from pydantic import BaseModel, ConfigDict, Json, computed_field
from pydantic.alias_generators import to_camel
from pydantic_core import from_json
from scenarios import WORKFLOWS, play_everything
from sqlalchemy import Text, select

from lib_events.event import EventRejected
from lib_workflows import Context, Engine, EventType, Signal, StepFailed, Update, current_step, step, workflow
from lib_workflows.errors import PayloadInvalid, PayloadTooLarge, QueueInvalid, TagsInvalid, TextInvalid, WaitTimeout
from lib_workflows.reading import queries
from lib_workflows.tables import metadata
from lib_workflows.values.codec import LIMIT_BYTES

JSON_COLUMNS = frozenset(
    ("input", "output", "error", "meta", "payload", "reply", "value", "progress", "tags", "match", "about", "form")
)
anything = Signal("anything", object)
asked = Update("asked", object, object)
Happened = EventType("own.happened", dict)


async def test_everything_that_is_stored_is_json(database_url, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("payloads must not be pickled")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await play_everything(engine)
        for table in metadata.sorted_tables:
            for column in table.columns:
                if isinstance(column.type, Text) and column.name in JSON_COLUMNS:
                    found = await engine.database.read(lambda c, column=column: list(c.scalars(select(column))))
                    for text in filter(None, found):
                        from_json(text)


class Hostile:
    """What a pickle would run."""

    def __reduce__(self):
        return print, ("owned",)


within_itself: list[Any] = []
within_itself.append(within_itself)
very_deep: list[Any] = []  # it can be written, and is deeper than what can be read
for _ in range(220):
    very_deep = [very_deep]
NO_DATA = {
    "hostile": Hostile(),
    "lock": threading.Lock(),
    "within itself": within_itself,
    "half a character": "\ud800",
    "very deep": very_deep,
}
TOO_LARGE = "x" * (LIMIT_BYTES + 1)
given: dict[str, Any] = {}


@step
async def returns_it() -> Any:
    return given["value"]


@step
async def beats_it() -> None:
    current_step().heartbeat(given["value"])


def returns_it_in_a_transaction(connection) -> Any:
    return given["value"]


def takes_it(connection, value: Any) -> None: ...


@workflow(name="takes")
async def takes(ctx: Context, value: Any) -> None: ...


# Where a workflow gives something that is stored.
PLACES = {
    "result of a step": lambda ctx, _: ctx.step(returns_it),
    "progress of a step": lambda ctx, _: ctx.step(beats_it),
    "result of a transaction": lambda ctx, _: ctx.transaction(returns_it_in_a_transaction),
    "argument of a transaction": lambda ctx, value: ctx.transaction(takes_it, value),
    "input of a child": lambda ctx, value: ctx.child(takes, value),
    "input of a run started apart": lambda ctx, value: ctx.start(takes, value),
    "signal to another run": lambda ctx, value: ctx.signal("nobody", anything, value),
    "view": lambda ctx, value: ctx.set_view("view", value),
    "event": lambda ctx, value: ctx.publish(Happened, {"value": value}),
    "about an approval": lambda ctx, value: ctx.approval("a", text="?", to="role:x", about={"value": value}),
    "match": lambda ctx, value: ctx.wait_event(Happened, match={"value": value}),
    "tag": lambda ctx, value: ctx.set_tags({"tag": value}),
}


@workflow(name="gives")
async def gives(ctx: Context, place: str) -> Any:
    if place == "result":
        return given["value"]
    if place == "input of the next life":
        await ctx.continue_as_new(given["value"])
    try:
        await PLACES[place](ctx, given["value"])
    except (PayloadInvalid, EventRejected, TagsInvalid) as error:
        return [type(error).__name__, str(error)]
    except StepFailed as error:
        return [error.error.type, error.error.message]
    return "taken"


async def test_objects_that_are_no_data_are_refused_wherever_they_are_given(database_url, subtests):
    async with Engine.open(database_url, [gives, takes]) as engine:
        for (kind, given["value"]), place in ((no, place) for no in NO_DATA.items() for place in PLACES):
            with subtests.test(kind=kind, place=place):
                name, told = await (await engine.start(gives, place)).result(10)
                assert name in ("PayloadInvalid", "EventRejected", "TagsInvalid"), told
        for kind, given["value"] in NO_DATA.items():
            with subtests.test(kind=kind, place="result"), pytest.raises(PayloadInvalid, match="result of workflow"):
                await (await engine.start(gives, "result")).result(10)
            with subtests.test(kind=kind, place="start"), pytest.raises(PayloadInvalid, match="input must fit"):
                await engine.start(takes, given["value"])
            with subtests.test(kind=kind, place="start of many"), pytest.raises(PayloadInvalid, match="input must fit"):
                await engine.start_many(takes, [given["value"]])
            handle = engine.handle("nobody")
            with subtests.test(kind=kind, place="signal"), pytest.raises(PayloadInvalid, match="signal anything must"):
                await handle.signal(anything, given["value"])
            with subtests.test(kind=kind, place="update"), pytest.raises(PayloadInvalid, match="update asked must"):
                await handle.update(asked, given["value"])


async def test_payloads_that_are_too_large_are_refused_wherever_they_are_given(sqlite_url, subtests):
    given["value"] = TOO_LARGE
    async with Engine.open(sqlite_url, [gives, takes]) as engine:
        for place in PLACES:
            with subtests.test(place=place):
                try:
                    name, told = await (await engine.start(gives, place)).result(10)
                except PayloadTooLarge as error:
                    name, told = "PayloadTooLarge", str(error)
                assert name in ("PayloadTooLarge", "TagsInvalid"), told
        for place in ("result", "input of the next life"):
            with subtests.test(place=place), pytest.raises((PayloadTooLarge, TypeError)):
                await (await engine.start(gives, place)).result(10)
        with subtests.test(place="start"), pytest.raises(PayloadTooLarge, match="store it elsewhere"):
            await engine.start(takes, TOO_LARGE)
        with (
            subtests.test(place="signal"),
            pytest.raises(PayloadTooLarge, match="signal anything must encode to at most"),
        ):
            await engine.handle("nobody").signal(anything, TOO_LARGE)


@workflow(name="waits-for-much")
async def waits_for_much(ctx: Context, letters: int) -> str:
    try:
        await ctx.wait_event(Happened, match={"number": "x" * letters}, timeout=0.01)
    except (PayloadTooLarge, WaitTimeout) as error:
        return type(error).__name__
    return "taken"


async def test_what_is_waited_for_is_no_larger_than_it_can_be_found_by(database_url):
    async with Engine.open(database_url, [waits_for_much]) as engine:
        assert await (await engine.start(waits_for_much, 980)).result(10) == "WaitTimeout"
        assert await (await engine.start(waits_for_much, 3_000)).result(10) == "PayloadTooLarge"


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("mute")


OWN_ERRORS = {
    "that cannot say what it is": Mute(),
    "with half a character": ValueError("\ud800"),
    "with NUL": ValueError("a\0b"),
    "with itself in it": ValueError(within_itself),
    "that is very long": ValueError(TOO_LARGE),
}


@step
async def raises_it() -> None:
    raise given["value"]


@workflow(name="raises")
async def raises(ctx: Context, where: str) -> None:
    if where == "in a step":
        await ctx.step(raises_it)
    raise given["value"]


async def test_an_error_with_any_text_ends_its_run(database_url, subtests):
    """It is kept as far as a database keeps it: a run that cannot be told of must not be tried for ever."""
    async with Engine.open(database_url, [raises]) as engine:
        for (kind, given["value"]), where in ((e, w) for e in OWN_ERRORS.items() for w in ("in a step", "outside")):
            with subtests.test(kind=kind, where=where):
                handle = await engine.start(raises, where)
                with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
                    await handle.result(10)
                assert not isinstance(caught.value, TimeoutError)
                assert await handle.status() == "failed"


class Address(BaseModel):
    """As programs elsewhere name its fields."""

    model_config = ConfigDict(alias_generator=to_camel)
    postal_code: str


moved = Signal("moved", Address)


@step
async def looks_up(address: Address) -> Address:
    return Address(postalCode=address.postal_code + "!")


@workflow(name="moves")
async def moves(ctx: Context, address: Address) -> Address:
    return await ctx.step(looks_up, await ctx.wait_signal(moved))


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    price: int

    @computed_field
    @property
    def tax(self) -> int:
        return self.price // 5


class Bill(BaseModel):
    lines: list[Line] = []
    about: Json[list[int]]


@step
async def bills(line: Line) -> Bill:
    return Bill(lines=[line, line], about="[1]")


def bills_in_a_transaction(connection, bill: Bill) -> Bill:
    return bill


@workflow(name="computes")
async def computes(ctx: Context, line: Line) -> Bill:
    bill = await ctx.step(bills, line)
    return await ctx.transaction(bills_in_a_transaction, bill)


async def test_models_that_compute_what_they_refuse_to_be_given_come_back_from_wherever_they_are_kept(database_url):
    """What they compute was written, and their results were lost: after the effect."""
    async with Engine.open(database_url, [computes]) as engine:
        handle = await engine.start(computes, Line(price=10))
        assert await handle.result(10) == Bill(lines=[Line(price=10)] * 2, about="[1]")
        assert computes.signature.result.schema("serialization")["$defs"]["Line"]["required"] == ["price"]


async def test_models_whose_fields_have_aliases_come_back_from_wherever_they_are_kept(database_url):
    async with Engine.open(database_url, [moves]) as engine:
        handle = await engine.start(moves, Address(postalCode="1010"))
        await handle.signal(moved, Address(postalCode="8010"))
        assert await handle.result(10) == Address(postalCode="8010!")
        assert moves.validate_input({"postalCode": "1010"}) == moves.validate_input({"postal_code": "1010"})
        kept = await engine.database.read(queries.get_run, handle.id)
        assert list(kept.output) == list(moves.output_schema()["properties"])


async def test_a_number_of_more_digits_than_are_read_again_is_refused(sqlite_url):
    async with Engine.open(sqlite_url, [takes]) as engine:
        with pytest.raises(PayloadInvalid, match="input must fit"):
            await engine.start(takes, 10**5_000)
        assert await (await engine.start(takes, 10**4_000)).result(10) is None


@workflow(name="measures")
async def measures(ctx: Context, values: list[float]) -> dict[str, float]:
    return dict(zip("abc", values, strict=True))


async def test_numbers_that_are_none_and_that_have_no_end_come_back(database_url):
    async with Engine.open(database_url, [measures]) as engine:
        result = await (await engine.start(measures, [nan, inf, -inf])).result(10)
        assert isnan(result.pop("a"))
        assert result == {"b": inf, "c": -inf}


BAD_NAMES = ("", "a\0b", "\ud800", "x" * 300, 7)


async def test_names_that_no_database_keeps_are_refused(sqlite_url, subtests):
    ctx = Context.__new__(Context)
    async with Engine.open(sqlite_url, [doubling]) as engine:
        for bad in BAD_NAMES:
            for what, use in {
                "id of a run": lambda bad=bad: engine.request(doubling, "1", id=bad),
                "name of a queue": lambda bad=bad: engine.request(doubling, "1", queue=bad),
                "idempotency_key": lambda bad=bad: engine.request(doubling, "1", idempotency_key=bad),
                "name of a signal": lambda bad=bad: Signal(bad, str),
                "name of an update": lambda bad=bad: Update(bad, str, str),
                "name of ctx.approval": lambda bad=bad: ctx.approval(bad, text="?", to="role:x"),
                "name of ctx.set_view": lambda bad=bad: ctx.set_view(bad, 1),
                "name of ctx.patched": lambda bad=bad: ctx.patched(bad),
            }.items():
                refused = pytest.raises((TextInvalid, QueueInvalid), match=f"{what} must be")
                with subtests.test(what=what, bad=ascii(bad)[:20]), refused:
                    use()
        for bad in ("a\0b", "\ud800"):
            with subtests.test(what="reason", bad=ascii(bad)), pytest.raises(TextInvalid, match="reason of"):
                await engine.handle("nobody").cancel(bad)
            with subtests.test(what="text", bad=ascii(bad)), pytest.raises(TextInvalid, match=r"text of ctx\.approval"):
                ctx.approval("a", text=bad, to="role:x")
