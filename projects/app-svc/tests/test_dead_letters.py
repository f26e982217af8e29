"""Dead letters over REST: what a handler of one's own gave up on is looked at, edited, handled again or let go."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lib_events.testing import wait_until

HANDLER = """
from pathlib import Path

from pydantic import BaseModel

from lib_events.event import EventType
from lib_events.subscription import subscribe

class Bell(BaseModel):
    tone: str

Rang = EventType("house.bell.rang", Bell)

@subscribe(Rang, durable="bell-ringer", attempts=1)
def ring(bell: Bell) -> None:
    if bell.tone == "broken":
        raise ValueError("no such tone")
    with Path({log!r}).open("a") as log:
        log.write(bell.tone + "\\n")
"""


@pytest_asyncio.fixture
async def house(make_settings: Any, run_app: Any, issuer: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """An AppService with a handler of somebody's own, and the file it writes to."""
    log, flow = tmp_path / "rung.txt", tmp_path / "bell_ringing.py"
    log.touch()
    flow.write_text(HANDLER.format(log=str(log)))
    async with run_app(make_settings(workflows=[str(flow)]), issuer) as app:
        app.rung = log
        yield app
    del sys.modules[flow.stem]


async def ring(app: Any, tone: str) -> None:
    event = {"specversion": "1.0", "id": tone, "source": "/door", "type": "house.bell.rang", "data": {"tone": tone}}
    headers = {"content-type": "application/cloudevents-batch+json"}
    answer = await app.client("alice").request("POST", "/v1/events", json=[event], headers=headers)
    assert answer.status_code == 202, answer.text


async def letters(app: Any) -> list[Any]:
    return (await app.operator().get("/v1/dead-letters")).json()["items"]


async def test_a_dead_letter_is_shown_edited_and_handled_again(house: Any) -> None:
    await ring(house, "broken")
    await ring(house, "ding")
    (letter,) = await wait_until(lambda: letters(house))
    assert (letter["subscription"], letter["event_type"], letter["error"], letter["status"]) == (
        "bell-ringer",
        "house.bell.rang",
        "ValueError: no such tone",
        "resting",
    )
    olga = house.operator()
    path = f"/v1/dead-letters/{letter['id']}"
    shown = (await olga.get(path)).json()
    assert shown["event"]["data"] == {"tone": "broken"}
    assert "bell_ringing.py" in shown["stack"]
    wrong = await olga.post(f"{path}/redrive", {"data": {"tune": "x"}})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/data/tone")
    assert (await olga.post(f"{path}/redrive", {"data": {"tone": "dong"}})).status_code == 202
    await wait_until(lambda: house.rung.read_text().split() == ["ding", "dong"])

    async def gone() -> bool:
        return await letters(house) == []

    await wait_until(gone)
    assert (await olga.get(path)).status_code == 404
    assert (await olga.post(f"{path}/redrive")).status_code == 404


async def test_a_dead_letter_that_fails_again_rests_again_and_may_be_discarded(house: Any) -> None:
    await ring(house, "broken")
    (letter,) = await wait_until(lambda: letters(house))
    olga = house.operator()
    path = f"/v1/dead-letters/{letter['id']}"
    assert (await olga.post(f"{path}/redrive")).json()["status"] == "redriven"

    async def rests_again() -> bool:
        return [(found["status"], found["attempts"]) for found in await letters(house)] == [("resting", 2)]

    await wait_until(rests_again)
    assert (await olga.request("POST", f"{path}/discard")).status_code == 204
    assert await letters(house) == []
    events = (await olga.get("/v1/events", params={"types": "evs.dead-letter.*"})).json()["items"]
    assert [event["type"] for event in events] == [
        "evs.dead-letter.buried",
        "evs.dead-letter.redriven",
        "evs.dead-letter.discarded",
    ]
    assert events[-1]["principal"] == "olga"


@pytest.mark.parametrize("action", ["redrive", "discard"])
async def test_only_operators_touch_dead_letters(house: Any, action: str) -> None:
    answer = await house.client("alice").post(f"/v1/dead-letters/1/{action}")
    assert answer.status_code == 403
    assert (await house.operator().get("/v1/dead-letters/0")).status_code == 422
