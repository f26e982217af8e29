"""Each built-in workflow on real input, started and decided through the GUI's pages, watched from outside."""

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

from cli_proj import moments
from cli_proj.demo.screen import Outcome
from cli_proj.demo.stage import DemoFailed, Stage, eventually, expect, expect_form
from cli_proj.timeline import Timeline

CSV = "us-airports.csv"
DECLINED_CARD = '"tok_declined"'  # a choice of the form is sent as JSON
WANTED_ROLE = "operator"
LONGEST_RUN_SECONDS = 45.0


async def import_table(stage: Stage) -> Outcome:
    """Upload a real CSV file with the start form."""
    path = real_csv()
    rows = path.read_text(encoding="utf-8").count("\n") - 1
    stage.screen.note(f"\n  import-table: {path.name}, {rows} airports, public domain, uploaded with the GUI's form")
    address = f"{stage.gui_url}/workflows/import-table"
    page = await stage.browser.open(address)
    form = expect_form(page, "/workflows/import-table")
    files = {"input/data@file": (path.name, path.read_bytes(), "text/csv")}
    page = await stage.browser.submit(page, form, {"input/name": "us-airports", "input/chunk_rows": "250"}, files=files)
    run, timeline = await _watched(stage, await stage.run_of(page), "completed")
    report = run["output"]
    expect(report["rows"] == rows, f"import-table must read {rows} rows, got {report['rows']}")
    result = f"{report['accepted']} rows accepted, {report['rejected']} rejected"
    return await _outcome(stage, run, timeline, result)


async def order(stage: Stage) -> Outcome:
    """Order something that can be paid; it rests for a second on the way, durably."""
    stage.screen.note("\n  order: stock, payment, a durable pause, shipment")
    run, timeline = await _watched(stage, await _start_order(stage, {"input/hold_seconds": "1"}), "completed")
    paid = run["output"]["paid_cents"] / 100
    return await _outcome(stage, run, timeline, f"paid {paid:.2f}, shipped {run['output']['tracking_number']}")


async def declined_order(stage: Stage) -> Outcome:
    """Order with a card that is declined: what was done is undone."""
    stage.screen.note("\n  order with a card that is declined: the reserved stock is released again")
    run, timeline = await _watched(stage, await _start_order(stage, {"input/card": DECLINED_CARD}), "failed")
    events = await _events_of(stage, run)
    released = "order.stock.released" in events
    expect("order.stock.reserved" in events and released, f"the stock must be released again, got {events}")
    return await _outcome(stage, run, timeline, f"{run['error']['type']}: undone, stock released")


async def access_request(stage: Stage) -> Outcome:
    """Ask for a role, let an administrator decide, see the role in the next token."""
    person, role = stage.person.username, WANTED_ROLE
    stage.screen.note(f"\n  access-request: {person} asks for the role {role} on the GUI's page")
    page = await stage.browser.open(f"{stage.gui_url}/access")
    values = {"role": role, "reason": "to look after everybody's runs"}
    await stage.browser.submit(page, expect_form(page, "/access"), values)
    run = await eventually(lambda: _newest(stage, "access-request"), "the start of access-request by its event")
    watching = asyncio.create_task(_watched(stage, run, "completed"))
    try:
        await _decide(stage, run)
        run, timeline = await watching
    finally:
        watching.cancel()
    expect(run["output"]["outcome"] == "granted", f"the role must be granted, got {run['output']}")
    await eventually(lambda: _role_shown(stage, role), f"the role {role} in the next token")
    stage.screen.step(f"{stage.admin.username} approved; the next token of {person} carries the role {role}")
    return await _outcome(stage, run, timeline, f"{role} granted, in the next token")


async def welcome_user(stage: Stage) -> Outcome:
    """Nobody started it: the registration's event did."""
    stage.screen.note(f"\n  welcome-user: started by itself when {stage.person.username} made an account")
    run = await eventually(lambda: _welcome_of(stage), "the welcome of the new user")
    run, timeline = await _watched(stage, run, "completed")
    return await _outcome(stage, run, timeline, run["output"]["subject"])


SCENES = (import_table, order, declined_order, access_request, welcome_user)


def real_csv() -> Path:
    """The data file that the AppService ships; looked up without importing that package."""
    found = importlib.util.find_spec("app_svc")
    if found is None or found.origin is None:
        raise DemoFailed("the package app-svc must be installed; run: uv sync")
    return Path(found.origin).parent / "data" / CSV


async def _start_order(stage: Stage, values: dict[str, str]) -> dict[str, Any]:
    page = await stage.browser.open(f"{stage.gui_url}/workflows/order")
    return await stage.run_of(await stage.browser.submit(page, expect_form(page, "/workflows/order"), values))


async def _decide(stage: Stage, run: dict[str, Any]) -> None:
    """Approve as the administrator, on the page where what waits is listed."""
    admin = stage.admin_browser
    page = await stage.sign_in(admin, stage.admin, "/approvals")
    expect(page.status == 200, f"the administrator must see the approvals, got {page.status}")

    async def asked() -> dict[str, Any] | None:
        items = (await stage.app.get("/v1/approvals", status="pending", run=run["id"]))["items"]
        return items[0] if items else None

    approval = await eventually(asked, "the question to an administrator")
    page = await admin.open(f"{stage.gui_url}/approvals")
    form = expect_form(page, f"/approvals/{approval['id']}/decision")
    values = {"comment": "welcome to the team"} if "comment" in form.names else {}
    name, value = next(
        ((name, value) for name, value in form.buttons if value in ("true", "approve", "approved")), ("", "")
    )
    expect(name, f"the approval must have a button to approve, got {form.buttons}")
    await admin.submit(page, form, values | {name: value})


async def _watched(stage: Stage, run: dict[str, Any], status: str) -> tuple[dict[str, Any], Timeline]:
    """Show a run until it ends, which must be with `status`."""
    try:
        async with asyncio.timeout(LONGEST_RUN_SECONDS):
            timeline = await stage.screen.follow(stage.app, run)
    except TimeoutError:
        raise DemoFailed(f"{run['workflow']} must end within {LONGEST_RUN_SECONDS:g} s, and did not") from None
    ended = timeline.run
    if ended["status"] != status:
        error = (ended.get("error") or {}).get("message", "")
        raise DemoFailed(f"{ended['workflow']} must end as {status}, got {ended['status']} {error}")
    return ended, timeline


async def _newest(stage: Stage, workflow: str) -> dict[str, Any] | None:
    items = (await stage.app.get("/v1/runs", workflow=workflow, limit=1))["items"]
    return items[0] if items else None


async def _welcome_of(stage: Stage) -> dict[str, Any] | None:
    for item in (await stage.app.get("/v1/runs", workflow="welcome-user", limit=20))["items"]:
        run: dict[str, Any] = await stage.app.get(f"/v1/runs/{item['id']}")
        if (run["input"] or {}).get("username") == stage.person.username:
            return run
    return None


async def _role_shown(stage: Stage, role: str) -> bool | None:
    page = await stage.browser.open(f"{stage.gui_url}/account")
    _, _, roles = page.text.partition("Roles ")
    return True if role in roles.partition("This GUI")[0].split() else None


async def _events_of(stage: Stage, run: dict[str, Any]) -> list[str]:
    page = await stage.app.get("/v1/events", correlation=run["correlation_id"], limit=200)
    return [event["type"] for event in page["items"]]


async def _outcome(stage: Stage, run: dict[str, Any], timeline: Timeline, result: str) -> Outcome:
    workflow = await stage.app.get(f"/v1/workflows/{run['workflow']}")
    started = moments.parse(run["started_at"] or run["created_at"])
    ended = moments.parse(run["ended_at"])
    expect(started and ended and timeline.has_ended, "a run that has ended must say when")
    seconds = (ended - started).total_seconds() if started and ended else 0.0
    return Outcome(run["workflow"], workflow["type"], result, seconds, await stage.count_events(run))
