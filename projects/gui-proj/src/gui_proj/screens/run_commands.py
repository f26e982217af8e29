"""What one can do to a run: each command says on the run's own page what came of it."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import link_to_run
from gui_proj.form_input import read_json
from gui_proj.visit import Visit


async def cancel(visit: Visit) -> Response:
    return await _command(visit, "cancel", "Cancelling. What was done is being undone.")


async def retry(visit: Visit) -> Response:
    return await _command(visit, "retry", "It runs again from where it failed.")


async def signal(visit: Visit) -> Response:
    try:
        payload = read_json(visit.field("payload") or "null")
    except ValueError as error:
        visit.say(f"The signal must be JSON: {error}.", tone="bad")
        return visit.redirect(link_to_run(visit.path("id")))
    name = quote(visit.field("name"), safe="")
    headers = {"Idempotency-Key": visit.key}
    return await _command(visit, f"signals/{name}", "The signal has been sent.", payload, headers)


async def _command(
    visit: Visit, verb: str, done: str, body: Any = None, headers: dict[str, str] | None = None
) -> Response:
    """Sends a command; a refusal that the person can understand is said on the run's own page."""
    run_id = visit.path("id")
    try:
        await visit.post(f"/v1/runs/{quote(run_id, safe='')}/{verb}", body, headers=headers)
    except AppServiceRefused as error:
        if error.status not in {400, 403, 409, 422}:
            raise
        visit.say(f"{error.title}. {error.detail}", tone="bad")
    else:
        visit.say(done)
    return visit.redirect(link_to_run(run_id))
