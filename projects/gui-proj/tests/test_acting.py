"""A run's page says for whom it acts, and a schedule's for whom its runs do."""

import html
import re

import pytest

from gui_proj.acting import acting_notice, may_be_stopped
from gui_proj.schedule_draft import DEFAULTS
from lib_events.testing import wait_until

SERVICES = [{"resource": "https://orders.example", "scope": ["orders", "refunds"]}]
MINE = {"principal": {"subject": "u1", "username": "ulla"}}


def said(state, *, until="2026-12-03T05:00:00Z", subject="u1", **run):
    run = {**MINE, "acting": {"state": state, "until": until, "services": SERVICES}, **run}
    shown = acting_notice(run, subject=subject, apps_url="https://auth.example/account/apps")
    return html.unescape(" ".join(re.sub(r"<[^>]+>", "", str(shown)).split()))


def test_each_state_says_for_whom_where_and_what_to_do():
    where = "at https://orders.example with orders, refunds"
    until = "until it ends, Thu 3 Dec 2026, 05:00 UTC at the latest."
    assert said("acting") == f"Acts for ulla {where} {until} See and stop what acts for you."
    assert said("acting", subject="u2") == f"Acts for ulla {where} {until}"
    assert said("stopped").startswith(f"Stopped: it acts no longer for ulla {where}. When it has failed, retry it")
    assert said("expired", subject="u2") == f"Expired: it acts no longer for ulla {where}."
    assert said("nobody", until=None, principal=None) == f"Acts for nobody, so it may do nothing {where}."
    assert [may_be_stopped({"acting": {"state": each}}) for each in ("acting", "stopped")] == [True, False]
    assert acting_notice({**MINE, "acting": None}, subject="u1", apps_url="") is None


@pytest.fixture(scope="module")
def person(product):
    with product.signed_in() as client:
        yield client


async def test_a_run_and_a_schedule_say_for_whom_they_act_once_that_was_allowed(person, product):
    address = "/schedules/+new?workflow=acting-patiently"
    form = {**DEFAULTS, "_from": "form", "name": "for-me", "acts_for_me": "true"}
    assert "Its runs act for you" in person.get(address).text
    refused = person.submit(address, form)
    assert refused.status_code == 403
    assert re.search(r'id="acts_for_me"[^>]* checked', refused.text)
    person.allow(refused, product.auth_url)
    assert person.submit(address, form).headers["Location"] == "/schedules/for-me"
    assert re.search(r"Acts for</dt><dd>admin, until \w+ ", person.get("/schedules/for-me").text)
    assert re.search(r'id="acts_for_me"[^>]* checked', person.get("/schedules/for-me/edit").text)
    stopped = person.submit("/schedules/for-me/edit", {**form, "acts_for_me": ""})
    assert stopped.status_code == 303
    assert "Acts for" not in person.get("/schedules/for-me").text

    run = person.submit("/workflows/acting-patiently", {"_from": "form"}).headers["Location"]
    acting = re.search(r'<p id="acting">(.*?)</p>', person.get(run).text)[1]
    assert f"<b>admin</b> at <code>{product.app_url}</code> with workflows:run until it ends" in acting
    assert f'href="{product.auth_url}/account/apps"' in acting
    await wait_until(lambda: "Send the signal" in person.get(run).text)
    person.submit(f"{run}/signal", {"name": "go-on", "payload": "true"}, page=run)
    await wait_until(lambda: "s-completed" in person.get(run).text)
    assert 'id="acting"' not in person.get(run).text
