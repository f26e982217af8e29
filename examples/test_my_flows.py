"""Tests of `my_flows.py`, in plain pytest with pytest-asyncio: `pytest examples/test_my_flows.py`."""

import json
from pathlib import Path

import pytest
from my_flows import Booking, book_a_room, quote

from lib_workflows import Engine
from lib_workflows.errors import Nondeterministic
from lib_workflows.testing import environment, failing, replay_history, survive

pytestmark = pytest.mark.asyncio


# --8<-- [start:tests]
async def test_nobody_is_waited_for_longer_than_a_quarter_of_an_hour(tmp_path: Path) -> None:
    async with environment(f"sqlite:///{tmp_path}/test.db", [book_a_room]) as env:
        handle = await env.engine.start(book_a_room, Booking(guest="Ada", nights=2))
        confirmation = await env.result(handle)  # time skips while every run rests
    assert (confirmation.price, confirmation.paid) == (160, False)


async def test_a_price_is_asked_for_again(tmp_path: Path) -> None:
    with failing(quote, ConnectionError("down"), ConnectionError("down")) as calls:
        async with environment(f"sqlite:///{tmp_path}/test.db", [book_a_room]) as env:
            await env.result(await env.engine.start(book_a_room, Booking(guest="Ada", nights=2)))
    assert calls == [(2,)] * 3


async def test_a_crash_at_any_commit_loses_no_booking(tmp_path: Path) -> None:
    async def book(engine: Engine) -> str:
        handle = await engine.start(book_a_room, Booking(guest="Ada"), id="booking-1")
        return handle.id

    number, crashed = 0, True
    while crashed:
        number += 1
        url = f"sqlite:///{tmp_path}/{number}.db"
        booked, crashed = await survive(url, [book_a_room], book, crash_at=number)
        assert booked == "booking-1"


def test_the_code_still_fits_what_runs_have_done() -> None:
    # uv run evs run export ID > examples/booking.json
    exported = json.loads(Path(__file__).with_name("booking.json").read_text())
    try:
        confirmation = replay_history(book_a_room, exported)
    except Nondeterministic as difference:
        pytest.fail(f"give the workflow a new version, or ask ctx.patched: {difference}")
    assert confirmation.paid


# --8<-- [end:tests]
