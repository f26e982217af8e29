"""Reading server-sent events."""

from cli_proj.sse import ServerSentEvent, read_events


async def read(text):
    async def lines():
        for line in text.split("\n"):
            yield line

    return [event async for event in read_events(lines())]


async def test_an_event_has_id_type_and_all_lines_of_its_data():
    assert await read("id: 1.7\nevent: evs.run.started\ndata: {\ndata: }\n\n") == [
        ServerSentEvent("1.7", "evs.run.started", "{\n}")
    ]


async def test_the_last_id_holds_for_later_events_without_one():
    events = await read("id: 1.7\ndata: a\n\ndata: b\n\n")
    assert [event.id for event in events] == ["1.7", "1.7"]


async def test_a_comment_is_a_sign_of_life_and_an_event_without_data_is_none():
    assert await read(": still here\n\nevent: x\n\n") == [None]


async def test_an_event_cut_off_in_the_middle_is_not_delivered():
    assert await read("data: a") == []
