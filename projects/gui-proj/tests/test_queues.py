"""Queues on screen: limited, paused and resumed without JavaScript; a run that has not begun says why."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest

from gui_proj.controls import Unreadable
from gui_proj.held import held_card
from gui_proj.limits_draft import DEFAULTS, LimitsDraft
from gui_proj.live import topics_of
from gui_proj.queue_words import is_to_come, limit_words, state_of, taken_words, waits
from lib_events.testing import wait_until

MAIL = "/queues/mail"


def words_of(text):
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", text).split())).replace(" .", ".").replace(" :", ":")


def plain(page):
    """What a page says, without its marks."""
    return words_of(page.text)


def queue(**changes):
    found = {"name": "mail", "paused": False, "note": "", "concurrency": None, "rate": None, "declared": False}
    found |= {"key": None, "per_key": None, "rate_per_key": None}
    counts = {"workflows": [], "queued": 0, "due": 0, "due_since": None, "under_way": 0}
    return found | counts | changes


@pytest.fixture(scope="module")
def person(product):
    with product.signed_in() as client:
        yield client


@pytest.fixture
def letters(person):
    """Starts letters; afterwards none is under way, and their queue is as it was."""
    started = []

    def start():
        answer = person.submit("/workflows/letter", {"_from": "json", "_json": ""})
        assert answer.status_code == 303, plain(answer)
        started.append(answer.headers["Location"])
        return started[-1]

    yield start
    for run in started:
        person.submit(f"{run}/cancel", {}, page=run)
    person.submit(f"{MAIL}/resume", {}, page=MAIL)
    person.submit(MAIL, DEFAULTS)


def limit(person, **limits):
    answer = person.submit(MAIL, {**DEFAULTS, **limits})
    assert answer.status_code == 303, plain(answer)


async def until(person, path, *wanted):
    """The page at `path`, once it says all that."""

    def look():
        page = person.get(path)
        return page if all(words in plain(page) for words in wanted) else None

    return await wait_until(look, timeout=20)


def test_limits_are_given_seen_changed_and_taken_away(person, letters):
    page = person.get(MAIL)
    assert "no limits" in plain(page)
    assert 'href="/workflows/letter"' in page.text
    limit(person, concurrency="5", rate_runs="100", rate_seconds="90", rate_seconds_unit="s")
    page = person.get(MAIL)
    assert "at most 5 under way, at most 100 begin in 90 s" in plain(page)
    assert re.search(r'name="concurrency"[^>]* value="5"', page.text)
    assert re.search(r'name="rate_seconds"[^>]* value="90"', page.text)
    listed = person.get("/queues")
    assert f'href="{MAIL}"' in listed.text
    assert "0 of 5 under way" in plain(listed)
    limit(person, concurrency="7")
    assert "at most 7 under way Pause" in plain(person.get(MAIL)), "the rate is gone"
    limit(person)
    assert "no limits" in plain(person.get(MAIL))


@pytest.mark.parametrize(
    ("changes", "control", "words"),
    [
        ({"concurrency": "0"}, "concurrency", "greater than or equal to 1"),
        ({"concurrency": "2.5"}, "concurrency", "integer"),
        ({"concurrency": "many"}, "concurrency", "must be a number, got “many”"),
        ({"rate_runs": "0"}, "rate_runs", "greater than or equal to 1"),
        ({"rate_runs": "5", "rate_seconds": "0"}, "rate_seconds", "greater than or equal to 0.001"),
        ({"rate_runs": "5", "rate_seconds": ""}, "rate_seconds", "must be a number, got “”"),
        ({"rate_runs": "5", "rate_seconds": "1e300"}, "rate_seconds", "must be a number"),
        ({"rate_per_key_runs": "5", "rate_per_key_seconds": ""}, "rate_per_key_seconds", "must be a number, got “”"),
        ({"rate_per_key_runs": "5"}, "rate_per_key_runs", "must have a key"),
        ({"per_key": "5"}, "per_key", "must have a key"),
    ],
)
def test_what_is_wrong_is_said_at_its_control_and_nothing_is_lost(person, changes, control, words):
    form = {**DEFAULTS, "rate_seconds_unit": "h", **changes}
    refused = person.submit(MAIL, form)
    assert refused.status_code == 422
    assert words in html.unescape(re.search(rf'<p class="error" id="{control}-error">([^<]+)', refused.text)[1])
    assert f'aria-describedby="{control}-' in refused.text
    for name, text in form.items():
        kept = rf'value="{text}" selected' if name.endswith("_unit") else rf'name="{name}"[^>]* value="{text}"'
        assert re.search(kept, refused.text), name
    assert "no limits" in plain(person.get(MAIL))


@pytest.mark.parametrize("nonsense", ["1e308", "-1", "NaN", "\0", "é", "9" * 5_000, "'\"><script>", "\r\nX: y"])
def test_nonsense_in_any_control_is_refused_and_breaks_nothing(person, nonsense):
    token = person.hidden(person.get(MAIL))["_csrf"]
    rates = {"rate_runs": "5", "key": "to", "rate_per_key_runs": "5"}
    for control in DEFAULTS.keys() - {"rate_seconds_unit", "rate_per_key_seconds_unit", "key"}:
        refused = person.post(MAIL, data={**DEFAULTS, **rates, control: nonsense, "_csrf": token})
        assert refused.status_code == 422, (control, plain(refused))
        assert "<script>" not in refused.text
    odd = person.post(MAIL, data={**DEFAULTS, "rate_seconds_unit": nonsense, "_csrf": token})
    assert odd.status_code == 303, "without a rate its unit says nothing"
    assert person.get("/queues", params={"cursor": nonsense}).status_code < 500
    assert person.post(f"{MAIL}/pause", data={"note": nonsense, "_csrf": token}).status_code == 303
    assert person.get(MAIL).status_code == 200
    assert person.submit(f"{MAIL}/resume", {}, page=MAIL).status_code == 303


async def test_of_a_paused_queue_each_run_says_so_until_it_is_resumed_right_in_the_list(person, letters):
    paused = person.submit(f"{MAIL}/pause", {"note": "out of stamps", "from": "list"}, page="/queues")
    assert paused.headers["Location"] == "/queues"
    listed = plain(person.get("/queues"))
    assert "mail: None of its runs begins." in listed
    assert "paused out of stamps" in listed
    run = letters()
    assert "Queue mail is paused: out of stamps." in plain(person.get(run))
    page = await until(person, MAIL, "1 waits, since")
    assert "Paused: out of stamps" in plain(page)
    assert person.submit(f"{MAIL}/resume", {}, page=MAIL).headers["Location"] == MAIL
    assert "out of stamps" not in plain(await until(person, run, "Waiting for signal stamped"))
    assert "open" in plain(person.get(MAIL))


async def test_a_run_that_waits_for_a_slot_says_how_many_are_taken(person, letters):
    limit(person, concurrency="1")
    first = letters()
    await until(person, first, "Waiting for signal stamped")
    second = letters()
    page = await until(person, second, "Waits for a slot of queue mail: 1 of 1 is taken.")
    assert f'<a href="{MAIL}">mail</a>' in page.text
    shown = plain(await until(person, MAIL, "Full: 1 of 1 is taken."))
    assert "1 of 1 under way" in shown
    assert '<progress class="full" max="1" value="1"' in person.get("/queues").text
    person.submit(f"{first}/signal", {"name": "stamped", "payload": "true"}, page=first)
    await until(person, second, "Waiting for signal stamped")


async def test_a_run_that_waits_for_its_turn_says_how_fast_they_begin(person, letters):
    limit(person, rate_runs="1", rate_seconds="1", rate_seconds_unit="h")
    await until(person, letters(), "Waiting for signal stamped")
    await until(person, letters(), "Waits for its turn in queue mail: at most 1 begins in 1 h.")
    assert 'data-every="2"' in person.get("/queues").text, "nothing tells that its turn has come"


def test_what_the_code_declares_is_not_changed_here_and_says_so(person):
    page = person.get("/queues/press")
    assert "at most 2 under way, at most 1 of each customer, at most 100 begin in 1 min" in plain(page)
    assert "They are declared in code" in plain(page)
    assert 'name="concurrency"' not in page.text
    refused = person.submit("/queues/press", {**DEFAULTS, "concurrency": "5"})
    assert refused.status_code == 409
    assert "declared in code" in plain(refused)
    assert "at most 2 under way" in plain(person.get("/queues/press"))


def test_a_name_is_any_text(person):
    path = "/queues/%3Cb%3E%20caf%C3%A9%20%26%20%22bar%22%3F%23%25"
    assert person.submit(f"{path}/pause", {"note": "<i>"}, page="/queues").headers["Location"] == path
    page = person.get(path)
    assert page.status_code == 200
    assert "<h1><b>" not in page.text
    assert '<b> café & "bar"?#%' in html.unescape(page.text)
    assert f'href="{path}"' in person.get("/queues").text
    person.submit(f"{path}/resume", {}, page=path)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (queue(), "open"),
        (queue(concurrency=2, under_way=1), "open"),
        (queue(concurrency=2, under_way=2), "full"),
        (queue(concurrency=2, under_way=9, paused=True), "paused"),
    ],
)
def test_a_queue_is_open_full_or_paused(found, words):
    assert state_of(found) == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (queue(concurrency=5, under_way=5), "5 of 5 are taken"),
        (queue(concurrency=1, under_way=1), "1 of 1 is taken"),
        (queue(concurrency=2, under_way=1_000), "1,000 runs under way, where 2 may be"),
    ],
)
def test_slots_are_counted_also_where_more_are_under_way_than_may_be(found, words):
    assert taken_words(found) == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (queue(), "nothing waits"),
        (queue(queued=3), "3 to begin later"),
        (queue(queued=1, due=1, due_since="2026-01-01T00:00:00Z"), "1 waits, since"),
        (queue(queued=1_005, due=1_001, due_since="2026-01-01T00:00:00Z"), "1,001 wait, the first since"),
    ],
)
def test_what_waits_is_told_with_its_first(found, words):
    shown = waits(found)
    assert words_of("".join(_flat(shown))).startswith(words)


def _flat(node):
    if isinstance(node, list):
        return [text for each in node for text in _flat(each)]
    return [str(node)] if node not in (None, False) else []


@pytest.mark.parametrize(
    ("status", "found", "age", "words"),
    [
        ("running", None, 60, ""),
        ("queued", None, 1, ""),
        ("queued", None, 60, "Waits in its queue, mail."),
        ("queued", queue(), 60, "Waits in its queue, mail."),
        ("queued", queue(paused=True), 0, "Queue mail is paused."),
        ("queued", queue(paused=True, note="No ink."), 0, "Queue mail is paused: No ink."),
        ("queued", queue(concurrency=5, under_way=5, due=1), 0, "Waits for a slot of queue mail: 5 of 5 are taken."),
        (
            "queued",
            queue(concurrency=5, under_way=4, key="customer", per_key=1, due=1),
            0,
            "Waits for its turn in queue mail: at most 1 of each customer.",
        ),
        ("queued", queue(concurrency=5, under_way=4, key="customer", due=1), 0, ""),  # turns keep nobody waiting
        ("queued", queue(concurrency=5, under_way=5), 0, ""),  # its time has not come
    ],
)
def test_a_run_that_has_not_begun_says_why_and_one_that_is_about_to_says_nothing(status, found, age, words):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    run = {"status": status, "queue": "mail", "created_at": (now - timedelta(seconds=age)).isoformat()}
    assert words_of(str(held_card(run, found, now=now) or "")) == words


def test_a_page_looks_by_itself_where_something_begins_that_nothing_tells_of():
    rate = {"runs": 5, "seconds": 1.0}
    assert not is_to_come(queue(queued=2, due=2, concurrency=1, under_way=1))
    assert is_to_come(queue(queued=2, due=1))
    assert is_to_come(queue(queued=2, due=2, rate=rate))
    assert is_to_come(queue(queued=2, due=2, key="to", rate_per_key=rate))
    assert not is_to_come(queue(rate=rate))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "no limits"),
        ({"concurrency": 1_000, "key": "customer"}, "at most 1,000 under way, turns by customer"),
        ({"key": "customer", "per_key": 2}, "at most 2 of each customer"),
        ({"rate": {"runs": 1, "seconds": 0.5}}, "at most 1 begins in 0.5 s"),
        (
            {"key": "customer", "rate_per_key": {"runs": 10, "seconds": 60.0}},
            "turns by customer, at most 10 of each customer begin in 1 min",
        ),
    ],
)
def test_limits_are_told_in_one_line(limits, words):
    assert limit_words(queue(**limits)) == words


def test_no_number_is_no_limit_and_a_rate_is_runs_in_a_time():
    none = dict.fromkeys(("concurrency", "rate", "key", "per_key", "rate_per_key"))
    assert LimitsDraft(DEFAULTS).body() == none
    texts = DEFAULTS | {"concurrency": "5", "rate_runs": "100", "rate_seconds": "1.5"}
    assert LimitsDraft(texts).body() == none | {"concurrency": 5, "rate": {"runs": 100, "seconds": 90.0}}
    of_each = {"key": "to", "per_key": 2, "rate_per_key": {"runs": 3, "seconds": 60.0}}
    assert LimitsDraft.of(queue(**of_each)).body() == none | of_each
    with pytest.raises(Unreadable) as caught:
        LimitsDraft(texts | {"rate_seconds": "long"}).body()
    assert caught.value.control == "rate_seconds"


def test_events_of_queues_concern_their_pages():
    event = {"type": "evs.queue.paused", "subject": "mail", "data": {"queue": "mail", "note": ""}}
    assert topics_of(event) == ["events", "queues"]
