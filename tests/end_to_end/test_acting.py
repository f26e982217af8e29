"""What acts for a person in a real browser: allowed on the way, seen on the run's page, stopped in the account."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import running_product
from .test_gui import sign_in

pytestmark = pytest.mark.browser

FLOW = Path(__file__).parents[2] / "projects" / "gui-proj" / "tests" / "acting_flow.py"


@pytest.fixture(scope="module")
def acting_product(tmp_path_factory):
    """A product with a workflow that acts; it outlives the pages, which complain of one that is gone."""
    with running_product(tmp_path_factory.mktemp("acting"), "--workflows", str(FLOW)) as running:
        yield running


def test_a_run_that_is_stopped_from_acting_says_so_while_one_looks(acting_product, page):
    sign_in(acting_product, page, "/workflows/acting-patiently")
    start = page.get_by_role("button", name="Start").last
    start.click()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Allow it").click()
    opened.value.get_by_role("button", name="Allow").click()
    expect(opened.value.get_by_text("Allowed")).to_be_visible()
    start.click()
    page.wait_for_url("**/runs/*")
    expect(page.locator("#acting")).to_contain_text(f"Acts for admin at {acting_product.app_url} with workflows:run")
    page.evaluate("() => { window.loadedOnce = true; }")

    account = page.context.new_page()
    account.goto(f"{acting_product.auth_url}/account/apps")
    account.get_by_role("button", name="Stop").click()
    expect(page.locator("#acting")).to_contain_text("Stopped", timeout=15_000)
    assert page.evaluate("() => window.loadedOnce")
