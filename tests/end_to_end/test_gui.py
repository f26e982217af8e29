"""The GUI in a real browser: work is started, followed live in every tab, decided on, and undone."""

import itertools
import json
import re

import pytest
from playwright.sync_api import expect

from .conftest import ADMIN_PASSWORD, fill_in_sign_in

pytestmark = pytest.mark.browser

SCREENS = ("/", "/workflows", "/workflows/order", "/runs", "/approvals", "/events", "/access", "/account")


@pytest.fixture
def signed_in(product, page):
    sign_in(product, page)
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


def test_every_screen_fits_its_window_and_breaks_no_policy(product, browser):
    context = browser.new_context()
    page = context.new_page()
    complaints = []
    page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    sign_in(product, page)
    for width, scheme in itertools.product((390, 1280), ("dark", "light")):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        for path in SCREENS:
            page.goto(product.gui_url + path)
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
