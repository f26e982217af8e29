"""Every screen of the GUI, in both themes, wide and narrow, without a finding of axe (WCAG 2.2 A and AA)."""

import itertools
from pathlib import Path

import pytest

from lib_events.testing.npm import node_modules

from .conftest import ADMIN_PASSWORD, fill_in_sign_in
from .test_gui import SCREENS, make_schedule, pause_queue, resume_queue, start_order

pytestmark = pytest.mark.browser

LOCKED = Path(__file__).parents[2] / "projects" / "auth-svc" / "tests" / "foreign"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Both themes and both widths of each page; which theme in which width is drawn, for axe takes most of the time.
LOOKS = ((("dark", 390), ("light", 1280)), (("light", 390), ("dark", 1280)))
FINDINGS = """async tags => (await axe.run(document, {runOnly: tags})).violations
    .map(found => [found.id, found.help, found.nodes.map(node => node.html)])"""


@pytest.fixture
def axe():
    """The source of axe-core, of the version that the AuthService's pages are looked at with."""
    return (node_modules(LOCKED) / "axe-core" / "axe.min.js").read_text()


def test_axe_finds_nothing(product, browser, axe, subtests, draw):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.set_content("<img src=x>")
    page.evaluate(axe)
    assert page.evaluate(FINDINGS, TAGS) != []  # it looks at all
    page.goto(product.gui_url)
    fill_in_sign_in(page, "admin", ADMIN_PASSWORD)
    page.wait_for_url(f"{product.gui_url}/**")
    make_schedule(product, page, "looked-at", every="1 h")
    run = f"/runs/{start_order(product, page)}"
    pause_queue(product, page, "default", "until everything is looked at")
    held = f"/runs/{start_order(product, page)}"
    below = ("", "/edit", "/delete", "/backfill", "/backfill?since=2026-01-01T00:00&until=2026-01-01T09:00")
    paths = [*SCREENS, run, held, *(f"/schedules/looked-at{part}" for part in below)]
    try:
        for path in paths:
            page.goto(product.gui_url + path)
            page.evaluate(axe)
            # The server sends the same page to everybody: theme and width are the style sheet's.
            for theme, width in itertools.chain(*draw.some(LOOKS, 1)):
                with subtests.test(path, theme=theme, width=width):
                    page.set_viewport_size({"width": width, "height": 900})
                    page.emulate_media(color_scheme=theme)
                    assert page.evaluate(FINDINGS, TAGS) == []
    finally:
        resume_queue(product, page, "default")
    context.close()
