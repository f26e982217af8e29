"""What pages carry, what they refuse, and that each screen works against the real AppService."""

import html
import json
import re
from contextlib import ExitStack

import pytest

from gui_proj.web_guard import content_security_policy
from lib_events.testing import wait_until

EVERYTHING_CHANGED = 'data: {"topics": ["*"]}'
SCREENS = (
    "/", "/workflows", "/workflows/order", "/runs", "/schedules", "/schedules/+new", "/schedules/+new?workflow=order",
    "/queues", "/queues/default", "/approvals", "/events", "/webhooks", "/webhooks/+new", "/access", "/account",
)  # fmt: skip


@pytest.fixture(scope="module")
def person(product):
    with product.signed_in() as client:
        yield client


async def ended(person, path):
    """The page of a run, once it has ended."""

    def look():
        page = person.get(path)
        return page if re.search(r'class="pill s-(completed|failed|cancelled)"', page.text) else None

    return await wait_until(look, timeout=30)


@pytest.mark.parametrize("path", [*SCREENS, "/runs/unknown"])
def test_every_page_has_the_policy_one_heading_a_language_and_no_inline_code(person, product, path):
    page = person.get(path)
    assert page.headers["Content-Security-Policy"] == content_security_policy(issuer=product.auth_url)
    assert "'unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.text.count("<h1") == 1
    assert '<html lang="en"' in page.text
    assert [tag for tag in re.findall(r"<[^>]*>", page.text) if re.search(r"\s(style|on[a-z]+)=", tag)] == []
    assert "<script>" not in page.text
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", SCREENS)
def test_every_page_fits_thirty_kilobytes_with_all_it_needs(person, path):
    page = person.get(path, headers={"Accept-Encoding": "gzip"})
    needed = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(needed) == 3
    total = int(page.headers["Content-Length"])
    for each in needed:
        asset = person.get(each, headers={"Accept-Encoding": "gzip"})
        assert "immutable" in asset.headers["Cache-Control"]
        total += int(asset.headers["Content-Length"])
    assert total < 30_000


def test_a_fragment_is_the_screen_without_its_frame(person):
    fragment = person.get("/runs", headers={"Evs-Fragment": "1"}).text
    assert "<html" not in fragment
    assert 'data-live="runs"' in fragment
    assert 'id="waiting-approvals"' in fragment


def test_a_token_of_another_session_is_refused(person, product):
    with product.signed_in() as other:
        token = other.hidden(other.get("/account"))["_csrf"]
    assert person.post("/theme", data={"_csrf": token, "theme": "dark"}).status_code == 403


def test_what_an_event_of_ours_alone_starts_offers_no_start(person):
    catalogue, page = person.get("/workflows").text, person.get("/workflows/access-request").text
    assert "Start order" in catalogue
    assert "Start access-request" not in catalogue
    assert "Nobody starts it by hand" in page
    assert 'action="/workflows/access-request"' not in page


async def test_a_started_order_is_seen_to_its_end(person):
    form = {"_from": "form", "input/sku": "mug-blue", "input/quantity": "2", "input/card": '"tok_visa"'}
    form |= {"input/address": "1 Main Street", "input/hold_after": '"payment"', "_tags": "team=blue"}
    started = person.submit("/workflows/order", form)
    assert started.status_code == 303, started.text
    page = await ended(person, started.headers["Location"])
    assert "s-completed" in page.text
    assert "reserve_stock" in page.text
    assert "team=blue" in page.text
    assert "booking a carrier, attempt 1" in page.text
    whole = person.get(started.headers["Location"] + "/output.json").json()
    assert whole["quantity"] == 2
    position = re.search(r'href="([^"]+/history/\d+)"', page.text)
    assert position is None or person.get(position[1]).status_code == 200


async def test_a_declined_order_shows_what_failed_and_what_was_undone(person):
    started = person.submit("/workflows/order", {"_from": "json", "_json": '{"card": "tok_declined"}'})
    page = await ended(person, started.headers["Location"])
    assert "CardDeclined" in page.text
    assert "k-undo" in page.text
    assert "u-undone" in page.text
    assert "Retry" in page.text
    again = person.get(re.search(r'href="(/workflows/order\?like=[^"]+)"', page.text)[1])
    assert '<option value="&#34;tok_declined&#34;" selected>' in again.text


async def test_two_runs_are_shown_beside_each_other(person):
    paths = []
    for form in ('{"quantity": 1}', '{"quantity": 2}', '{"card": "tok_declined"}'):
        started = person.submit("/workflows/order", {"_from": "json", "_json": form}).headers["Location"]
        await ended(person, started)
        paths.append(started)
    one, two, declined = (path.rpartition("/")[2] for path in paths)
    page = person.get(f"/runs/{two}/comparison?with={one}")
    assert page.status_code == 200
    assert page.text.count("<h1") == 1
    assert "reserve_stock" in page.text
    assert f'href="/runs/{one}"' in page.text
    assert "CardDeclined" in person.get(f"/runs/{declined}/comparison?with={one}").text
    assert "No operation differs" in person.get(f"/runs/{one}/comparison?with={one}").text
    assert person.get(f"/runs/{one}/comparison?with=unknown").status_code == 404
    assert person.get(f"/runs/{one}/comparison").status_code == 404


@pytest.mark.parametrize("key", ["é", "\0", "x" * 300, "a\r\nX: y"])
def test_a_key_that_is_none_of_ours_is_not_sent_on(person, key):
    started = person.submit("/workflows/order", {"_json": "{}", "_from": "json", "_key": key})
    assert started.status_code == 303


def test_a_form_sent_twice_starts_one_run(person):
    page = person.get("/workflows/order")
    form = person.hidden(page) | {"_json": "{}", "_from": "json"}
    first = person.post("/workflows/order", data=form)
    second = person.post("/workflows/order", data=form)
    assert first.headers["Location"] == second.headers["Location"]


def test_what_the_appservice_refuses_stands_at_its_field(person):
    refused = person.submit("/workflows/order", {"_from": "form", "input/card": "41", "input/sku": "<mug>"})
    assert refused.status_code == 422
    assert re.search(r'id="input/card-error">[^<]+</p>', refused.text)
    assert 'value="&lt;mug&gt;"' in refused.text


async def test_what_acts_for_a_person_says_so_before_and_starts_once_they_allowed_it(person, product):
    page = person.get("/workflows/acting")
    assert "This workflow acts for you." in page.text
    assert f"<code>{product.app_url}</code> it may: workflows:read" in page.text
    assert "acts for you" not in person.get("/workflows/order").text

    refused = person.submit("/workflows/acting", {"_from": "form", "_tags": "kept=yes"})
    assert refused.status_code == 403
    assert 'value="kept=yes"' in refused.text
    address = person.allow(refused, product.auth_url)
    assert address.startswith(f"{product.auth_url}/account/apps/allow?client=evs-app&")
    started = person.submit("/workflows/acting", {"_from": "form"})
    assert started.status_code == 303
    await wait_until(lambda: "completed" in person.get(started.headers["Location"]).text)


def test_json_that_is_none_is_refused_and_kept(person):
    refused = person.submit("/workflows/order", {"_from": "json", "_json": '{"card": '})
    assert refused.status_code == 422
    assert "Must be JSON" in refused.text
    assert "{&#34;card&#34;:" in refused.text


def test_the_tabs_carry_what_was_typed_from_one_to_the_other(person):
    page = person.submit("/workflows/order", {"_from": "form", "_tab": "json", "input/sku": "lamp"})
    assert "&#34;sku&#34;: &#34;lamp&#34;" in page.text
    page = person.submit("/workflows/order", {"_from": "json", "_tab": "form", "_json": '{"sku": "kettle"}'})
    assert 'value="kettle"' in page.text


async def test_a_table_is_imported_from_an_uploaded_file(person):
    rows = "id,score\n" + "".join(f"{number},{number / 7:.3f}\n" for number in range(3_000))
    token = person.hidden(person.get("/workflows/import-table"))["_csrf"]
    started = person.post(
        "/workflows/import-table",
        data={"_csrf": token, "_from": "form", "input/name": "scores", "input/chunk_rows": "500"},
        files={"input/data@file": ("scores.csv", rows.encode())},
    )
    assert started.status_code == 303, started.text
    page = await ended(person, started.headers["Location"])
    assert person.get(started.headers["Location"] + "/output.json").json()["accepted"] == 3_000
    assert "check_part" in page.text


def test_a_body_beyond_the_limit_is_refused_clearly(person):
    token = person.hidden(person.get("/workflows/import-table"))["_csrf"]
    refused = person.post(
        "/workflows/import-table",
        data={"_csrf": token, "_from": "form", "input/name": "big"},
        files={"input/data@file": ("big.csv", b"a,b\n" * 2_600_000)},
    )
    assert refused.status_code == 413


async def test_a_run_can_be_cancelled_and_what_it_did_is_undone(person):
    started = person.submit("/workflows/order", {"_from": "json", "_json": '{"hold_seconds": 600}'})
    path = started.headers["Location"]
    await wait_until(lambda: "take_payment" in person.get(path).text)
    assert person.submit(f"{path}/cancel", {}, page=path).status_code == 303
    page = await ended(person, path)
    assert "s-cancelled" in page.text
    assert "k-undo" in page.text
    refused = person.submit(f"{path}/cancel", {}, page=path)
    assert refused.status_code == 303
    assert 'class="notice bad"' in person.get(path).text


@pytest.mark.parametrize("path", ["/runs/unknown", "/workflows/unknown", f"/runs/unknown/history/{'9' * 5000}"])
def test_what_does_not_exist_is_said_with_a_way_out(person, path):
    page = person.get(path)
    assert page.status_code == 404
    assert 'class="button primary"' in page.text
    assert 'action="/sign-out"' in page.text


@pytest.mark.parametrize("field", ["_add", "_remove"])
def test_an_item_that_no_list_has_changes_nothing(person, field):
    form = {field: f"/lines/{'9' * 5000}/x", "_from": "json", "_json": '{"lines": [1]}'}
    page = person.submit("/workflows/order", form)
    assert page.status_code == 200


@pytest.mark.parametrize("text", ["NaN", "[1e999]", '"\\ud800"', "[" * 100_000])
def test_json_that_could_not_be_sent_on_is_refused(person, text):
    refused = person.submit("/workflows/order", {"_from": "json", "_json": text})
    assert refused.status_code == 422
    assert "Must be JSON" in refused.text


def test_runs_are_found_by_their_tags(person):
    for tag in ("season=spring", "season=autumn"):
        started = person.submit("/workflows/order", {"_from": "json", "_json": "{}", "_tags": tag})
    run = started.headers["Location"]
    address = re.search(r'href="(/runs\?tag=[^"]+)">season=autumn', person.get(run).text)[1]
    found = person.get(address)
    assert re.findall(r'class="row-link" href="([^"]+)"', found.text) == [run]
    assert re.search(r'<a class="chip" href="/runs" aria-current="true">tag season=autumn', found.text)


async def test_a_long_history_is_shown_page_by_page(person):
    rows = "id\n" + "".join(f"{number}\n" for number in range(200))
    value = {"name": "long", "data": rows, "chunk_rows": 2}
    started = person.submit("/workflows/import-table", {"_from": "json", "_json": json.dumps(value)})
    path = started.headers["Location"]
    page = await ended(person, path)
    later = person.get(html.unescape(re.search(r'href="([^"]+)">Later operations', page.text)[1]))
    shown, following = (set(re.findall(r'id="(op-[^"]+)"', each.text)) - {"op-queue"} for each in (page, later))
    assert len(shown) == 150
    assert following
    assert not shown & following
    assert f'href="{path}">From the start' in later.text


def test_runs_are_filtered_by_address(person):
    page = person.get("/runs?status=failed&status=nonsense&workflow=order")
    assert page.status_code == 200
    assert re.search(r'class="chip" href="/runs\?workflow=order" aria-current="true"', page.text)
    assert person.get("/runs?cursor=nonsense").status_code == 400


def test_events_are_shown_newest_first(person):
    page = person.get("/events?types=evs.run.completed")
    assert page.status_code == 200
    assert person.get("/events?types=a b&subject=<x>").status_code == 200


def test_a_role_is_asked_for_and_the_question_is_kept(person):
    refused = person.submit("/access", {"role": "Not A Role", "reason": "x"})
    assert refused.status_code == 422
    asked = person.submit("/access", {"role": "auditor", "reason": "To read the books."})
    assert asked.status_code in (303, 409), asked.text
    page = person.get("/access")
    assert "auditor" in page.text


async def test_the_live_stream_tells_of_a_run_that_moves(person):
    with person.stream("GET", "/live") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("data:")) == EVERYTHING_CHANGED
        started = person.submit("/workflows/order", {"_from": "json", "_json": "{}"})
        run = started.headers["Location"].rpartition("/")[2]
        told = next(line for line in lines if line.startswith("data:") and f"run:{run}" in line)
        assert '"runs"' in told or "step" in told


def test_whoever_listens_later_is_also_told_to_look_at_everything(person):
    with person.stream("GET", "/live") as first, ExitStack() as later:
        told = [first.iter_lines()]  # letting go of the lines would close the stream
        assert next(line for line in told[0] if line.startswith("data:")) == EVERYTHING_CHANGED
        told.append(later.enter_context(person.stream("GET", "/live")).iter_lines())
        assert next(line for line in told[1] if line.startswith("data:")) == EVERYTHING_CHANGED


def test_pages_stay_live_when_the_appservices_log_was_replaced(own_product):
    with own_product.signed_in() as person, person.stream("GET", "/live") as stream:
        lines = stream.iter_lines()
        person.submit("/workflows/order", {"_from": "json", "_json": "{}"})
        next(line for line in lines if "run:" in line)  # a place in the log that will be gone
        own_product.stop("app_svc")
        next(line for line in lines if line == "event: down")
        for file in own_product.data.glob("app.db*"):
            file.unlink()
        own_product.start("app_svc")
        assert next(line for line in lines if "topics" in line) == EVERYTHING_CHANGED
        person.submit("/workflows/order", {"_from": "json", "_json": "{}"})
        assert next(line for line in lines if "run:" in line)
