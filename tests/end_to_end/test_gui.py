"""The GUI in a real browser: work is started, followed live in every tab, decided on, and undone."""

import itertools
import json
import re

import pytest
from playwright.sync_api import expect

from .conftest import ADMIN_PASSWORD, fill_in_sign_in

pytestmark = pytest.mark.browser

SCREENS = (
    "/", "/workflows", "/workflows/order", "/runs", "/schedules", "/schedules/+new?workflow=order", "/approvals",
    "/queues", "/queues/default", "/events", "/webhooks", "/webhooks/+new", "/access", "/account",
)  # fmt: skip


@pytest.fixture(scope="module")
def cookies(product, browser):
    """What the browser of somebody who has signed in has kept: tests that are not about signing in begin with it."""
    context = browser.new_context()
    sign_in(product, context.new_page())
    kept = context.cookies()
    context.close()
    return kept


@pytest.fixture
def signed_in(page, cookies):
    page.context.add_cookies(cookies)
    return page


def sign_in(product, page, path="/", *, username="admin", password=ADMIN_PASSWORD):
    page.goto(product.gui_url + path)
    fill_in_sign_in(page, username, password)
    page.wait_for_url(f"{product.gui_url}/**")


def start_order(product, page, **fields):
    """Fill in the start form of `order`; ends on the run's page."""
    page.goto(f"{product.gui_url}/workflows/order")
    for label, value in fields.items():
        field = page.get_by_label(label.replace("_", " ").capitalize(), exact=True)
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    page.get_by_role("button", name="Start").last.click()
    page.wait_for_url("**/runs/*")
    return page.url.rpartition("/")[2]


def status_of(page):
    return page.locator("#run-head .pill")


def test_a_started_run_is_seen_to_its_end_without_reloading(product, signed_in):
    start_order(product, signed_in, hold_seconds="1")
    signed_in.evaluate("() => { window.loadedOnce = true; }")
    expect(status_of(signed_in)).to_have_text("completed", timeout=20_000)
    expect(signed_in.locator(".op-title", has_text="ship")).to_be_visible()
    assert signed_in.evaluate("() => window.loadedOnce")


def test_a_declined_order_shows_what_was_undone(product, signed_in):
    start_order(product, signed_in, card="tok_declined")
    expect(status_of(signed_in)).to_have_text("failed", timeout=20_000)
    expect(signed_in.get_by_role("alert")).to_contain_text("CardDeclined")
    expect(signed_in.locator("rect.k-undo")).to_have_count(2)  # when it began to undo, and the undo
    expect(signed_in.locator(".op-name", has_text="reserve_stock").locator(".u-undone")).to_have_text("undone")


def test_cancelling_undoes_before_ones_eyes(product, signed_in):
    start_order(product, signed_in, hold_seconds="600")
    expect(signed_in.locator(".op-title", has_text="take_payment")).to_be_visible()
    signed_in.get_by_role("button", name="Cancel").click()
    expect(status_of(signed_in)).to_have_text("cancelled", timeout=20_000)
    expect(signed_in.locator("rect.k-undo").first).to_be_visible()


def test_eight_tabs_share_one_stream_and_all_follow(product, signed_in):
    # HTTP/1.1 gives a browser six connections a host: one stream for each tab would leave two of them dead.
    tabs = [signed_in.context.new_page() for _ in range(7)]
    for tab in tabs:
        tab.goto(f"{product.gui_url}/runs")
    run = start_order(product, signed_in)
    for tab in tabs:
        expect(tab.locator(f'[id="row-{run}"] .pill')).to_have_text("completed", timeout=20_000)


def test_the_leading_tab_may_close_and_another_takes_over(product, signed_in):
    signed_in.goto(f"{product.gui_url}/runs")
    follower = signed_in.context.new_page()
    follower.goto(f"{product.gui_url}/runs")
    starter = signed_in.context.new_page()
    signed_in.close()
    run = start_order(product, starter)
    expect(follower.locator(f'[id="row-{run}"] .pill')).to_have_text("completed", timeout=20_000)


def test_a_tab_that_listens_late_misses_nothing(product, signed_in):
    signed_in.goto(f"{product.gui_url}/runs")
    late, held = signed_in.context.new_page(), []
    late.route("**/live.js", lambda route: held.append(route))  # noqa: PLW0108 - playwright marks the function
    late.goto(f"{product.gui_url}/runs", wait_until="commit")
    expect(late.locator("#runs")).to_be_visible()
    run = start_order(product, signed_in.context.new_page())
    expect(signed_in.locator(f'[id="row-{run}"] .pill')).to_have_text("completed", timeout=20_000)
    held[0].continue_()
    expect(late.locator(f'[id="row-{run}"] .pill')).to_have_text("completed")


def test_a_table_is_imported_from_a_file_with_its_progress(product, signed_in, tmp_path):
    rows = "id,score\n" + "".join(f"{number},{number / 7:.3f}\n" for number in range(3_500)) + "oops,none\n"
    (tmp_path / "scores.csv").write_text(rows)
    signed_in.goto(f"{product.gui_url}/workflows/import-table")
    signed_in.get_by_label("Name").fill("scores")
    signed_in.get_by_label("or a file").set_input_files(tmp_path / "scores.csv")
    signed_in.get_by_role("button", name="Start").last.click()
    expect(status_of(signed_in)).to_have_text("completed", timeout=30_000)
    expect(signed_in.locator("#run-body")).to_contain_text('"accepted": 3500')


def test_the_form_grows_by_buttons_and_keeps_what_was_typed(product, signed_in):
    signed_in.goto(f"{product.gui_url}/workflows/order")
    signed_in.get_by_label("Sku").fill("lamp")
    signed_in.get_by_role("button", name="JSON").click()
    typed = json.loads(signed_in.get_by_label("Input as JSON").input_value())
    assert typed["sku"] == "lamp"
    signed_in.get_by_role("button", name="Form", exact=True).click()
    expect(signed_in.get_by_label("Sku")).to_have_value("lamp")


def test_a_role_is_asked_for_decided_and_given_live(product, administrator, browser, signed_in):
    secret = "a-password-of-grace"
    administrator.evs("admin", "user", "create", "grace", EVS_NEW_PASSWORD=secret)
    grace = browser.new_context().new_page()
    sign_in(product, grace, "/access", username="grace", password=secret)
    signed_in.goto(f"{product.gui_url}/approvals")
    comment = "On call this week."
    grace.get_by_label("Reason").fill("To retry what fails at night.")
    grace.get_by_role("button", name="Ask").click()
    expect(grace.get_by_role("status").first).to_contain_text("You have asked")

    question = signed_in.locator("article", has_text="grace asks for the role operator")
    expect(question).to_be_visible(timeout=20_000)  # without anybody reloading
    question.get_by_label("Comment").fill(comment)
    start_order(product, signed_in.context.new_page())  # something else happens meanwhile
    expect(question.get_by_label("Comment")).to_have_value(comment)
    question.get_by_role("button", name="Approve").click()
    expect(signed_in.get_by_role("status").first).to_contain_text("Approved")

    expect(grace.locator("#requests .pill").first).to_have_text("granted", timeout=20_000)
    signed_in.goto(f"{product.gui_url}/approvals?status=approved")
    expect(signed_in.locator("article", has_text="grace")).to_contain_text(comment)
    grace.context.close()


def test_a_lost_connection_is_said_and_mended(product, browser):
    context = browser.new_context()
    page = context.new_page()
    sign_in(product, page, "/runs")
    context.set_offline(offline=True)
    expect(page.locator("#connection")).to_be_visible(timeout=10_000)
    context.set_offline(offline=False)
    expect(page.locator("#connection")).to_be_hidden(timeout=20_000)
    context.close()


def test_everything_works_without_javascript(product, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(product, page)
    start_order(product, page)

    def has_ended():
        page.reload()
        return status_of(page).inner_text() == "completed"

    for _ in range(200):
        if has_ended():
            break
        page.wait_for_timeout(100)  # a person who reloads
    assert has_ended()
    page.get_by_label("Theme: Dark").first.click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Sign out").first.click()
    expect(page.get_by_role("heading", name="You are signed out.")).to_be_visible()
    context.close()


def test_every_screen_fits_its_window_and_breaks_no_policy(product, browser, cookies):
    context = browser.new_context()
    context.add_cookies(cookies)
    page = context.new_page()
    complaints = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for path in SCREENS:
        page.goto(product.gui_url + path)
        for width, scheme in itertools.product((390, 1280), ("dark", "light")):
            page.set_viewport_size({"width": width, "height": 844})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), (path, width)
            expect(page.get_by_role("navigation", name="Main")).to_be_visible()
            expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert complaints == []
    context.close()


def test_one_can_work_with_the_keyboard_alone(product, signed_in):
    signed_in.goto(f"{product.gui_url}/workflows/order")
    signed_in.keyboard.press("Tab")
    expect(signed_in.get_by_role("link", name="Skip to the content")).to_be_focused()
    signed_in.get_by_label("Sku").focus()
    signed_in.keyboard.press("Enter")  # sends the form, and starts: it does not press a tab or a remove button
    signed_in.wait_for_url("**/runs/*")
    assert re.search(r"/runs/\w+$", signed_in.url)


def make_schedule(product, page, name, *, every):
    """Fill in the form of a new schedule of `order`; ends on the schedule's page."""
    page.goto(f"{product.gui_url}/schedules/+new?workflow=order")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("At an interval").check()
    number, unit = every.split()
    page.get_by_label("Every", exact=True).fill(number)
    page.get_by_label("Unit of: Every").select_option(unit)
    page.get_by_role("button", name="Make the schedule").last.click()
    page.wait_for_url(f"**/schedules/{name}")


def test_the_next_times_are_seen_as_one_types_and_on_ones_own_clock(product, browser):
    context = browser.new_context(timezone_id="Asia/Tokyo")
    page = context.new_page()
    sign_in(product, page, "/schedules/+new?workflow=order")
    page.get_by_label("Cron expression").fill("30 5 1 7 *")
    preview = page.get_by_role("status").filter(has_text="Your time")
    expect(preview).to_contain_text("1 Jul, 14:30")
    expect(preview).to_contain_text("Asia/Tokyo")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    expect(preview.locator("tbody tr").first).to_contain_text(
        re.compile(r"1 Jul, 12:30.*1 Jul, 05:30.*1 Jul \d{4}, 03:30", re.DOTALL)
    )
    page.get_by_label("Cron expression").fill("61 5 * * *")
    expect(page.locator("#preview")).to_contain_text("must name a valid minute")
    page.get_by_label("At an interval").check()
    expect(preview.locator("tbody tr")).to_have_count(5)
    context.close()


def test_a_run_that_a_schedule_starts_appears_without_reloading(product, signed_in):
    make_schedule(product, signed_in, "often", every="2 s")
    signed_in.evaluate("() => { window.loadedOnce = true; }")
    listing = signed_in.context.new_page()
    listing.goto(f"{product.gui_url}/schedules")
    expect(signed_in.locator("#schedule-body .pill", has_text="completed").nth(1)).to_be_visible(timeout=20_000)
    expect(listing.locator("#schedule-often .sign.s-completed").nth(1)).to_be_visible(timeout=20_000)
    signed_in.get_by_text("Pause", exact=True).click()
    signed_in.get_by_label("Why").fill("enough")
    runs = signed_in.locator("#schedule-body .row-link")
    expect(runs.nth(3)).to_be_visible(timeout=20_000)
    expect(signed_in.get_by_label("Why")).to_have_value("enough")  # while the page went on around it
    assert signed_in.evaluate("() => window.loadedOnce")
    signed_in.get_by_role("button", name="Pause it").click()
    expect(signed_in.locator("#schedule-head .notice")).to_contain_text("enough")
    expect(listing.locator("#schedule-often")).to_contain_text("enough")


def test_a_schedule_is_made_filled_and_deleted_with_the_keyboard_alone(product, signed_in):
    signed_in.goto(f"{product.gui_url}/schedules")

    def press(name, role="link"):
        signed_in.get_by_role(role, name=name).last.focus()
        signed_in.keyboard.press("Enter")

    press("New schedule")
    signed_in.wait_for_url("**/+new")
    signed_in.get_by_label("What it starts").focus()
    signed_in.keyboard.type("order")
    press("Go on", "button")
    signed_in.get_by_label("Name", exact=True).focus()
    signed_in.keyboard.type("by-keys")
    signed_in.keyboard.press("Enter")  # keeps it: it presses no tab and no preview
    signed_in.wait_for_url("**/schedules/by-keys")
    signed_in.get_by_text("Pause", exact=True).focus()
    signed_in.keyboard.press("Enter")
    signed_in.keyboard.press("Tab")
    signed_in.keyboard.type("for a while")
    signed_in.keyboard.press("Enter")
    expect(signed_in.locator("#schedule-head .notice")).to_contain_text("for a while")
    press("Backfill")
    press("How many runs?", "button")
    press(re.compile(r"Start \d runs"), "button")
    expect(signed_in.locator("#schedule-body .row-link").first).to_be_visible()
    press("Delete")
    press("Delete it", "button")
    signed_in.wait_for_url("**/schedules")
    expect(signed_in.locator("#schedule-by-keys")).to_have_count(0)


def test_a_schedule_is_made_without_javascript(product, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(product, page, "/schedules/+new?workflow=order")
    page.get_by_label("Name", exact=True).fill("no-script")
    page.get_by_label("Cron expression").fill("30 5 1 7 *")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview tbody tr").first).to_contain_text(re.compile(r"1 Jul \d{4}, 05:30"))
    expect(page.get_by_role("columnheader", name="Your time")).to_be_hidden()  # nobody knows it here
    expect(page.get_by_label("Name", exact=True)).to_have_value("no-script")
    page.get_by_role("button", name="Make the schedule").last.click()
    page.get_by_text("Pause", exact=True).click()
    page.get_by_label("Why").fill("stocktaking")
    page.get_by_role("button", name="Pause it").click()
    expect(page.get_by_text("stocktaking")).to_be_visible()
    context.close()


def pause_queue(product, page, name, note):
    """Pause a queue in the list of queues; ends there."""
    page.goto(f"{product.gui_url}/queues")
    row = page.locator(f"#queue-{name}")
    row.locator("summary").click()
    row.get_by_label("Why").fill(note)
    row.get_by_role("button", name="Pause it").click()
    expect(row).to_contain_text(note)


def resume_queue(product, page, name):
    page.goto(f"{product.gui_url}/queues/{name}")
    page.get_by_role("button", name=f"Resume {name}").click()
    expect(page.locator("#queue-head")).not_to_contain_text("paused")


def test_a_queue_is_paused_and_resumed_in_the_list_and_everybody_sees_it_without_reloading(product, signed_in):
    listing = signed_in.context.new_page()
    listing.goto(f"{product.gui_url}/queues")
    listing.evaluate("() => { window.loadedOnce = true; }")
    row = listing.locator("#queue-default")
    pause_queue(product, signed_in, "default", "stocktaking")
    expect(row).to_contain_text("stocktaking")
    try:
        start_order(product, signed_in)
        expect(signed_in.locator("#run-body")).to_contain_text("Queue default is paused: stocktaking.")
        expect(row).to_contain_text("1 waits, since")
        assert listing.evaluate("() => window.loadedOnce")
    finally:
        row.get_by_role("button", name="Resume default").click()
    expect(row.locator(".pill")).to_have_text("open")
    expect(signed_in.locator("#run-head .pill")).to_have_text("completed", timeout=20_000)
    expect(signed_in.locator("#run-body")).not_to_contain_text("stocktaking")


def test_what_one_types_into_the_list_of_queues_stays_while_it_goes_on(product, signed_in):
    signed_in.goto(f"{product.gui_url}/queues")
    row = signed_in.locator("#queue-default")
    row.locator("summary").click()
    row.get_by_label("Why").fill("not yet")
    other = signed_in.context.new_page()
    other.goto(f"{product.gui_url}/queues/elsewhere")
    other.get_by_label("Under way at most", exact=True).fill("3")
    other.get_by_role("button", name="Keep the limits").click()
    expect(other.locator("#queue-head")).to_contain_text("at most 3 under way")
    expect(signed_in.locator("#queue-elsewhere")).to_contain_text("0 of 3 under way")
    expect(row.get_by_label("Why")).to_have_value("not yet")
    row.locator("summary").click()
    expect(row.get_by_label("Why")).to_be_hidden()


def test_a_queue_is_limited_paused_and_resumed_without_javascript(product, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(product, page, "/queues/by-hand")
    page.get_by_label("Under way at most", exact=True).fill("2")
    page.get_by_label("Begin at most", exact=True).fill("100")
    page.get_by_label("Unit of: In", exact=True).select_option("h")
    page.get_by_role("button", name="Keep the limits").click()
    expect(page.locator("#queue-head")).to_contain_text("at most 2 under way, at most 100 begin in 1 h")
    pause_queue(product, page, "by-hand", "no hands")
    resume_queue(product, page, "by-hand")
    context.close()


def test_who_is_no_operator_is_told_that_a_run_waits_in_its_queue_and_no_more(
    product, administrator, signed_in, browser
):
    secret = "a-password-of-nina"
    administrator.evs("admin", "user", "create", "nina", EVS_NEW_PASSWORD=secret)
    page = browser.new_context().new_page()
    sign_in(product, page, username="nina", password=secret)
    pause_queue(product, signed_in, "default", "a reason for operators")
    try:
        start_order(product, page)
        expect(page.locator("#run-body")).to_contain_text("Waits in its queue, default.")
        expect(page.get_by_role("main")).not_to_contain_text("a reason for operators")
        expect(page.get_by_role("link", name="Queues")).to_have_count(0)
        expect(page.get_by_role("link", name="default")).to_have_count(0)
    finally:
        resume_queue(product, signed_in, "default")
    expect(page.locator("#run-head .pill")).to_have_text("completed", timeout=20_000)
    page.goto(f"{product.gui_url}/queues")
    expect(page.get_by_role("heading", level=1)).to_have_text("You may not do this.")
    page.context.close()


def test_who_is_no_operator_is_offered_no_schedules(product, administrator, browser):
    secret = "a-password-of-mary"
    administrator.evs("admin", "user", "create", "mary", EVS_NEW_PASSWORD=secret)
    page = browser.new_context().new_page()
    sign_in(product, page, "/workflows/order", username="mary", password=secret)
    expect(page.get_by_role("heading", level=1, name="order")).to_be_visible()
    expect(page.get_by_role("link", name="Schedules")).to_have_count(0)
    expect(page.get_by_role("link", name="On a schedule")).to_have_count(0)
    page.goto(f"{product.gui_url}/schedules")
    expect(page.get_by_role("heading", level=1)).to_have_text("You may not do this.")
    expect(page.get_by_role("link", name="Ask for a role")).to_be_visible()
    page.context.close()
