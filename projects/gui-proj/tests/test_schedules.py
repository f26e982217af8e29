"""Schedules on screen: made, changed, paused and filled without JavaScript, and only offered to whoever may."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest

from gui_proj.controls import Unreadable
from gui_proj.live import topics_of
from gui_proj.schedule_draft import BRANCHES, DEFAULTS, ScheduleDraft
from gui_proj.session import Person, Session
from lib_auth.tokens import TokenSet
from lib_events.testing import wait_until

NEW = "/schedules/+new?workflow=order"
ORDER = {"_from": "json", "_json": '{"sku": "mug-blue"}'}


def plain(page):
    """What a page says, without its marks."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page.text).split()))


def texts(**changes):
    return ScheduleDraft({**DEFAULTS, **changes})


@pytest.fixture(scope="module")
def person(product):
    with product.signed_in() as client:
        yield client


def make(person, name, **changes):
    made = person.submit(NEW, {**DEFAULTS, **ORDER, "name": name, **changes})
    assert made.status_code == 303, plain(made)
    assert made.headers["Location"] == f"/schedules/{name}"
    return made.headers["Location"]


def test_a_schedule_is_made_seen_changed_and_deleted(person):
    path = make(
        person,
        "mornings",
        timezone="Europe/Berlin",
        tags="team=blue, urgent",
        catch_up_window="90",
        catch_up_window_unit="min",
    )
    page = person.get(path)
    assert "0 6 * * mon-fri Europe/Berlin" in plain(page)
    assert "at most 90 min late" in plain(page).lower()
    assert "team=blue" in plain(page)
    assert page.text.count(" data-local>") == page.text.count('data-local="Europe/Berlin"') == 5
    assert "mornings" in plain(person.get("/schedules"))
    form = person.get(f"{path}/edit").text
    assert 'value="team=blue, urgent"' in form
    assert re.search(r'name="catch_up_window"[^>]* value="90"', form)
    assert (
        "&#34;sku&#34;: &#34;mug-blue&#34;"
        in person.submit(f"{path}/edit", {**DEFAULTS, "_from": "form", "_tab": "json", "input/sku": "mug-blue"}).text
    )
    changed = person.submit(f"{path}/edit", {**DEFAULTS, **ORDER, "when": "every", "every": "2", "overlap": "allow"})
    assert changed.status_code == 303, plain(changed)
    page = plain(person.get(path))
    assert "every 2 h" in page
    assert "start another run beside it" in page
    assert "The runs it has started stay" in plain(person.get(f"{path}/delete"))
    assert person.submit(f"{path}/delete", {}).headers["Location"] == "/schedules"
    assert person.get(path).status_code == 404


@pytest.mark.parametrize(
    ("changes", "control", "words"),
    [
        ({"cron": "61 * * * *"}, "cron", "must name a valid minute"),
        ({"timezone": "Mars/Olympus"}, "timezone", "must be an IANA time zone"),
        ({"when": "every", "every": "0"}, "every", "greater than or equal to 1"),
        ({"when": "every", "every": "soon"}, "every", "must be a number, got “soon”"),
        ({"when": "times", "times": "2001-01-01T00:00"}, "times", "must have one that is to come"),
        ({"when": "times", "times": "tomorrow"}, "times", "valid datetime"),
        ({"until": "2001-01-01T00:00"}, "when", "must have one that is to come"),
        ({"since": "2031-01-03T00:00", "until": "2031-01-02T00:00"}, "until", "must leave a time that is due"),
        ({"jitter": "2", "jitter_unit": "d"}, "jitter", "at most"),
        ({"tags": "schedule=mine"}, "tags", "must leave"),
        ({"name": "a/b"}, "name", "match pattern"),
        ({"_json": '{"quantity": 0}'}, None, "quantity"),
    ],
)
def test_what_is_wrong_is_said_at_its_control_and_nothing_is_lost(person, changes, control, words):
    refused = person.submit(NEW, {**DEFAULTS, **ORDER, "name": "never", "note": "kept", **changes})
    assert refused.status_code == 422
    if control is not None:
        error = re.search(rf'<p class="error" id="{control}-error">([^<]+)', refused.text)
        assert error, plain(refused)
        assert words in html.unescape(error[1])
    assert words in plain(refused)
    assert re.search(r'name="note"[^>]* value="kept"', refused.text)
    assert person.get("/schedules/never").status_code == 404


@pytest.mark.parametrize(
    "nonsense", ["1e308", "-1", "NaN", "\0", "é", "[" * 5_000, "'\"><script>", "%00/../..", "\r\nX: y"]
)
def test_nonsense_in_any_control_is_refused_and_breaks_nothing(person, nonsense):
    token = person.hidden(person.get(NEW))["_csrf"]
    for control in DEFAULTS:
        when = next((name for name, controls in BRANCHES.items() if control.removesuffix("_unit") in controls), "cron")
        form = {**DEFAULTS, "_from": "json", "_json": '{"quantity": 0}', "when": when, control: nonsense}
        refused = person.post(NEW, data=form | {"_csrf": token})
        assert refused.status_code == 422, (control, plain(refused))
        assert "<script>" not in refused.text
    for verb in ("trigger", "pause", "resume", "backfill", "delete", "edit"):
        form = dict.fromkeys(("_key", "note", "since", "until"), nonsense)
        assert person.submit(f"/schedules/unknown/{verb}", form, page="/schedules").status_code in {303, 400, 404, 422}
    for query in ("cursor", "workflow"):
        assert person.get("/schedules", params={query: nonsense}).status_code < 500
        assert person.get("/schedules/+new", params={query: nonsense}).status_code < 500


def test_a_name_that_is_taken_is_said_at_the_name(person):
    make(person, "taken")
    refused = person.submit(NEW, {**DEFAULTS, **ORDER, "name": "taken"})
    assert refused.status_code == 409
    assert 'id="name-error"' in refused.text


def test_the_next_times_are_seen_before_anything_is_kept(person):
    form = {**DEFAULTS, **ORDER, "name": "seen", "cron": "30 5 1 jan *", "_preview": "1"}
    shown = person.submit(NEW, form)
    assert shown.status_code == 200
    assert re.findall(r"Fri 1 Jan \d{4}, 05:30|Sat 1 Jan \d{4}, 05:30", plain(shown))
    assert re.search(r'name="cron"[^>]* value="30 5 1 jan \*"', shown.text)
    wrong = person.submit(NEW, form | {"cron": "never"})
    assert 'id="cron-error"' in wrong.text
    assert person.get("/schedules/seen").status_code == 404
    typed = person.post(
        "/schedules/+preview", data=form | {"_csrf": person.hidden(shown)["_csrf"]}, headers={"Evs-Fragment": "1"}
    )
    assert "<html" not in typed.text
    assert len(re.findall(r"1 Jan \d{4}, 05:30", plain(typed))) == 5


async def test_it_is_paused_with_its_reason_triggered_and_resumed(person):
    path = make(person, "by-hand", paused="true", note="until it is needed")
    assert "until it is needed" in plain(person.get("/schedules"))
    key = {"_key": "one-press"}
    for _ in range(2):  # a button pressed twice
        assert person.submit(f"{path}/trigger", key, page=path).headers["Location"] == path
    page = await wait_until(lambda: "s-completed" in (page := person.get(path)).text and page, timeout=30)
    (run,) = set(re.findall(r'class="row-link" href="(/runs/[^"]+)"', page.text))
    assert "by hand" in plain(page)
    assert f'<dd><a href="{path}">by-hand</a></dd>' in person.get(run).text
    assert run in person.get("/schedules").text
    person.submit(f"{path}/resume", {}, page=path)
    assert "until it is needed" not in plain(person.get(path))
    person.submit(f"{path}/pause", {"note": "stocktaking"}, page=path)
    assert "Paused : stocktaking" in plain(person.get(path))


def test_a_backfill_says_how_many_runs_it_starts_before_it_starts_any(person):
    path = make(person, "gaps", cron="0 6 * * *")
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    wanted = {"since": (now - timedelta(days=3)).isoformat(), "until": now.isoformat()}
    assert person.get(f"{path}/backfill").status_code == 200
    page = person.get(f"{path}/backfill", params=wanted)
    assert "This starts 3 runs of order" in plain(page)
    assert "Nothing has run yet" in plain(person.get(path))
    assert (
        person.submit(
            f"{path}/backfill", wanted, page=f"{path}/backfill?since={wanted['since']}&until={wanted['until']}"
        ).status_code
        == 303
    )
    shown = person.get(path)
    assert "3 runs started." in plain(shown)
    assert plain(shown).count("backfill") >= 3
    assert "Every time in this range has its run" in plain(person.get(f"{path}/backfill", params=wanted))
    backwards = person.get(f"{path}/backfill", params={"since": wanted["until"], "until": wanted["since"]})
    assert backwards.status_code == 422
    assert 'id="until-error"' in backwards.text


def test_what_is_declared_in_code_can_be_paused_but_neither_changed_nor_deleted(person):
    page = person.get("/schedules/declared")
    assert "nobody's: it is declared in code" in plain(page)
    assert [word for word in ("edit", "delete", "backfill") if f'href="/schedules/declared/{word}"' in page.text] == [
        "backfill"
    ]
    refused = person.submit("/schedules/declared/edit", {**DEFAULTS, "_from": "form"})
    assert refused.status_code == 409
    assert "declared in code" in plain(refused)
    person.submit("/schedules/declared/delete", {})
    assert 'class="notice bad"' in (page := person.get("/schedules/declared")).text
    person.submit("/schedules/declared/pause", {"note": "not this year"}, page="/schedules/declared")
    assert "Paused : not this year" in plain(person.get("/schedules/declared"))


def test_a_workflow_is_chosen_first_and_its_own_page_leads_there(person):
    assert '<option value="order">' in person.get("/schedules/+new").text
    assert 'href="/schedules/+new?workflow=order"' in person.get("/workflows/order").text
    assert person.get("/schedules/+new?workflow=unknown").status_code == 404


def test_events_of_schedules_concern_their_pages():
    event = {"type": "evs.schedule.fired", "subject": "mornings", "data": {"run": "r1"}}
    assert topics_of(event) == ["events", "schedules", "schedule:mornings"]


@pytest.mark.parametrize(
    ("changes", "timing"),
    [
        ({}, {"cron": "0 6 * * mon-fri"}),
        (
            {"timezone": "Europe/Berlin", "until": "2031-01-01T00:00"},
            {"cron": "0 6 * * mon-fri", "timezone": "Europe/Berlin", "until": "2031-01-01T00:00:00Z"},
        ),
        ({"when": "every", "every": "1.5", "every_unit": "min", "timezone": "left over"}, {"every_seconds": 90.0}),
        (
            {"when": "times", "times": "2031-01-01T00:00Z\r\n\r\n 2031-01-02T00:00 ", "since": "left over"},
            {"times": ["2031-01-01T00:00Z", "2031-01-02T00:00:00Z"]},
        ),
    ],
)
def test_only_what_belongs_to_the_chosen_timing_is_sent(changes, timing):
    assert texts(**changes).timing() == timing


def test_a_number_that_is_none_is_named_with_its_control():
    with pytest.raises(Unreadable) as caught:
        texts(jitter="much").policies()
    assert caught.value.control == "jitter"


@pytest.mark.parametrize(
    ("roles", "scope", "may"),
    [
        (["operator"], "workflows:manage", True),
        (["admin"], "workflows:manage", True),
        (["member"], "workflows:manage", False),
        (["operator"], "workflows:run", False),
    ],
)
def test_what_is_for_operators_is_offered_to_them_alone(roles, scope, may):
    tokens = TokenSet("access", datetime.now(UTC), scope=frozenset({scope}))
    assert Session("cookie", Person("u1", "ada", tuple(roles)), tokens, 0.0).may_manage is may
