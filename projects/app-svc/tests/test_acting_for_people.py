"""Runs call another team's service as the person who started them: the real services, and that of the examples."""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from acting_installation import FLOWS, Acting, acting_installation
from installation import PASSWORD, SCOPE, Person
from sqlalchemy import select, text

from app_svc.service import open_engine_only
from lib_auth.delegations import ACCESS_TOKEN, EXCHANGE
from lib_events.event import Event
from lib_events.secret_file import read_secret
from lib_events.testing import wait_until
from lib_workflows.authoring.delegation import TokenRequest
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.tables import attempts


async def test_a_run_reads_the_orders_of_whoever_started_it_once_they_allowed_it(
    acting_on_both: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = acting_on_both
    acting.watch_tokens(monkeypatch)
    ulla = await acting.ulla()
    shown = (await ulla.get("/v1/workflows/my-orders")).json()["acts_for_starter"]
    assert shown == [{"resource": acting.orders_url, "scope": ["orders"], "lasts_seconds": 30 * 86_400.0}]

    refused = await ulla.post("/v1/runs", {"workflow": "my-orders", "id": "mine"})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:evs:problem:consent-needed")
    assert acting.orders_url in refused.json()["detail"]
    assert "Allowed" in (await acting.allow(refused.json()["consent_uri"])).text

    run = await acting.ended((await acting.start(ulla, "my-orders", id="mine"))["id"])
    assert (run.status, run.output) == ("completed", ["an order of ulla"])
    await acting.until_nothing_acts()
    await acting.until_nothing_is_kept()

    # Nothing of it is in the database, neither the person's token nor the one the step used.
    secrets = [*acting.tokens_seen, ulla.headers["authorization"].removeprefix("Bearer ")]
    assert len(secrets) == 2
    for name, dump in (await everything(acting.service.database)).items():
        assert not any(secret in dump for secret in secrets), name


async def everything(database: Any) -> dict[str, str]:
    """All rows of all tables, as text."""

    def read(connection: Any) -> dict[str, str]:
        if connection.dialect_name == "sqlite":
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        else:
            query = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        names = connection.execute(text(query)).scalars().all()
        return {name: str(connection.execute(text(f'SELECT * FROM "{name}"')).all()) for name in names}

    return await database.read(read)


async def test_it_acts_long_after_the_persons_token_and_session_are_over(acting_on_both: Acting) -> None:
    acting = acting_on_both
    await acting.allowed("patient")
    tokens = await acting.installation.tokens("ulla")
    ulla = Person(acting.installation, tokens["access_token"])
    run = await acting.start(ulla, "patient")
    (given,) = await acting.delegations()
    assert given["purpose"] == f"Run {run['id']} of the workflow patient"
    secret = read_secret(acting.installation.data / "secrets" / "evs-gui.secret")
    form = {"token": tokens["refresh_token"]}
    url = f"{acting.installation.auth_url}/oauth2/revoke"
    assert (await acting.installation.http.post(url, data=form, auth=("evs-gui", secret))).status_code == 200
    ended = await acting.let_go_on(await acting.ulla(), run)
    assert ended.output == "may"


WITHDRAWALS: dict[str, tuple[tuple[str, str, Any], str]] = {
    "consent withdrawn": (("DELETE", "users/ulla/consents/evs-app", None), "withdrawn"),
    "signed out everywhere": (("DELETE", "users/ulla/sessions", None), "withdrawn"),
    "password reset": (("POST", "users/ulla/reset-password", {"password": f"{PASSWORD} 2"}), "withdrawn"),
    "disabled": (("POST", "users/ulla/disable", None), "person"),
    "not let act there": (("PATCH", "resources/orders", {"actors": []}), "scope"),
    "resource gone": (("DELETE", "resources/orders", None), "scope"),
}


@pytest.mark.parametrize("withdrawal", WITHDRAWALS)
async def test_what_is_taken_back_reaches_the_step_with_what_to_do(acting: Acting, withdrawal: str) -> None:
    ulla = await acting.allowed("patient")
    run = await acting.start(ulla, "patient")
    administration, reason = WITHDRAWALS[withdrawal]
    await acting.administer(*administration)

    def signal(connection: Any) -> None:  # whoever it acts for may not be able to any more
        from lib_workflows.runs.commands import send_signal

        send_signal(connection, run["id"], "go-on", "true")

    await acting.service.database.transact(signal)
    ended = await acting.ended(run["id"])
    assert ended.output.startswith(f"{reason}: run {run['id']} may not act at {acting.orders_url}"), ended.output
    assert "to go on, " in ended.output


async def test_what_was_for_a_time_is_over_after_it(acting: Acting) -> None:
    ulla = await acting.allowed("brief")
    run = await acting.start(ulla, "brief")
    (row,) = await acting.rows()
    await wait_until(lambda: time.time_ns() // 1_000 > row.expires_at)
    assert await acting.delegations() == []
    ended = await acting.let_go_on(ulla, run)
    assert ended.output.startswith(f"expired: run {run['id']} may not act at {acting.orders_url}: ")
    assert "let its workflow declare that it lasts longer" in ended.output


async def test_a_token_that_a_step_holds_is_refused_within_a_second_of_being_taken_back(
    acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting.watch_tokens(monkeypatch)
    ulla = await acting.allowed("outer")
    run = await acting.start(ulla, "patient")
    await acting.service.engine.residence.tokens(
        TokenRequest(run_id=run["id"], workflow="patient", resource=acting.orders_url, scope=("orders",))
    )
    headers = {"authorization": f"Bearer {acting.tokens_seen[-1]}"}

    async def ask() -> int:
        return (await acting.installation.http.get(f"{acting.orders_url}/orders", headers=headers)).status_code

    async def is_let_in() -> bool:
        return await ask() == 200

    async def is_refused() -> bool:
        return await ask() == 401

    await wait_until(is_let_in)
    (given,) = await acting.delegations()
    await acting.administer("DELETE", f"users/ulla/delegations/{given['id']}")
    await wait_until(is_refused, timeout=1)


async def test_only_a_person_can_start_what_acts_for_one(acting: Acting) -> None:
    secret = read_secret(acting.installation.data / "secrets" / "evs-local.secret")
    url = f"{acting.installation.auth_url}/oauth2/token"
    form = {"grant_type": "client_credentials"}
    token = (await acting.installation.http.post(url, data=form, auth=("evs-local", secret))).json()["access_token"]
    machine = Person(acting.installation, token)
    refused = await machine.post("/v1/runs", {"workflow": "my-orders"})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:evs:problem:person-needed")
    assert "sign in as one" in refused.json()["detail"]
    batch = {"runs": [{"workflow": "plain"}, {"workflow": "my-orders"}]}
    assert (await machine.post("/v1/runs:batch", batch)).status_code == 403
    assert (await machine.get("/v1/runs", workflow="plain")).json()["items"] == []


async def test_who_acts_for_a_person_already_starts_nothing_that_does(acting: Acting) -> None:
    ulla = await acting.allowed("patient")
    token = ulla.headers["authorization"].removeprefix("Bearer ")
    exchange = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
    secret = read_secret(acting.installation.data / "secrets" / "evs-app.secret")
    url = f"{acting.installation.auth_url}/oauth2/token"
    found = (await acting.installation.http.post(url, data=exchange, auth=("evs-app", secret))).json()
    delegated = Person(acting.installation, found["access_token"])
    assert (await delegated.post("/v1/runs", {"workflow": "plain"})).status_code == 202
    refused = await delegated.post("/v1/runs", {"workflow": "patient"})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:evs:problem:person-needed")


async def test_a_run_that_an_event_starts_has_nobody_to_act_for(acting: Acting) -> None:
    flows = sys.modules["acting_flows"]

    def publish(connection: Any) -> None:
        connection.publish(Event.of(flows.OrderSeen, {"id": "1"}, source=connection.source))

    await acting.service.database.transact(publish)

    async def found() -> Any:
        page = await acting.service.database.read(queries.list_runs, queries.RunFilter(workflow="on-order"), None, 10)
        return page.items[0] if page.items else None

    run = await wait_until(found, timeout=20)
    ended = await acting.ended(run.id)
    assert ended.output.startswith("none: ")
    assert "start or retry it as that person" in ended.output


async def test_children_act_by_what_their_parent_was_given_and_others_do_not(acting: Acting) -> None:
    ulla = await acting.allowed("outer")
    assert (await acting.ended((await acting.start(ulla, "outer"))["id"])).output == "may"
    modest = await acting.ended((await acting.start(ulla, "modest-outer"))["id"])
    assert modest.output.startswith("none: ")
    launched = await acting.ended((await acting.start(ulla, "launcher"))["id"])
    assert (await acting.ended(launched.output)).output.startswith("none: ")


async def test_a_run_that_continues_as_new_goes_on_acting(acting: Acting) -> None:
    ulla = await acting.allowed("again")
    run = await acting.start(ulla, "again", id="for-ever")

    async def last_life() -> Any:
        found = await acting.service.database.read(queries.get_run, run["id"])
        return found if found.status == "completed" else None

    assert (await wait_until(last_life, timeout=20)).output == "may"
    await acting.until_nothing_acts()


async def test_a_retry_acts_again_where_the_person_asks_and_not_where_an_operator_does(acting_on_both: Acting) -> None:
    acting = acting_on_both
    ulla = await acting.allowed("strict")
    sys.modules["acting_flows"].out_of_order.add("strict")
    run = await acting.start(ulla, "strict")
    assert (await acting.ended(run["id"])).error.type == "StepFailed"
    await acting.until_nothing_acts()
    sys.modules["acting_flows"].out_of_order.clear()

    scope = f"{SCOPE} workflows:manage"
    operator = Person(acting.installation, (await acting.installation.tokens("admin", scope=scope))["access_token"])
    assert (await operator.post(f"/v1/runs/{run['id']}/retry", None)).status_code == 202
    refused = await acting.ended(run["id"])
    assert "DelegationRefused: run" in refused.error.message
    assert "retry it as that person" in refused.error.message

    assert (await ulla.post(f"/v1/runs/{run['id']}/retry", None)).status_code == 202
    assert (await acting.ended(run["id"])).output == "may"
    await acting.until_nothing_acts()


async def test_a_fork_acts_for_whoever_forks_it(acting: Acting) -> None:
    ulla = await acting.allowed("patient")
    run = await acting.start(ulla, "patient")
    forked = await ulla.post(f"/v1/runs/{run['id']}/fork", {"id": "forked"})
    assert forked.status_code == 202, forked.text
    purposes = {given["purpose"] for given in await acting.delegations()}
    assert purposes == {f"Run {run_id} of the workflow patient" for run_id in (run["id"], "forked")}
    again = await ulla.post(f"/v1/runs/{run['id']}/fork", {"id": "forked"})
    assert again.status_code == 202
    assert len(await acting.delegations()) == 2
    assert (await acting.let_go_on(ulla, forked.json())).output == "may"
    assert (await acting.let_go_on(ulla, run)).output == "may"
    await acting.until_nothing_acts()


async def test_the_same_start_again_gives_nothing_more(acting_on_both: Acting) -> None:
    acting = acting_on_both
    ulla = await acting.allowed("patient")
    run = await acting.start(ulla, "patient", id="once")
    headers = ulla.headers | {"idempotency-key": "k"}
    url, body = f"{acting.installation.app_url}/v1/runs", {"workflow": "patient"}
    keyed = [(await acting.installation.http.post(url, json=body, headers=headers)).json()["id"] for _ in range(2)]
    assert keyed[0] == keyed[1]
    assert (await acting.start(ulla, "patient", id="once"))["id"] == run["id"]
    starts = [acting.start(ulla, "patient", id="raced") for _ in range(5)]
    assert {run["id"] for run in await asyncio.gather(*starts)} == {"raced"}
    assert len(await acting.delegations()) == 3
    conflict = await ulla.post("/v1/runs", {"workflow": "again", "id": "once"})
    assert conflict.status_code == 409
    assert len(await acting.delegations()) == 3


async def test_a_batch_begins_with_a_delegation_for_each_run_that_acts(acting: Acting) -> None:
    ulla = await acting.allowed("patient")
    batch = {"runs": [{"workflow": "patient"}, {"workflow": "plain"}, {"workflow": "patient"}]}
    started = await ulla.post("/v1/runs:batch", batch)
    assert started.status_code == 202, started.text
    assert len(await acting.delegations()) == 2
    for run in started.json()["items"]:
        if run["workflow"] == "patient":
            assert (await acting.let_go_on(ulla, run)).output == "may"
    broken = {"runs": [{"workflow": "patient", "id": "b1"}, {"workflow": "plain", "id": "b1"}]}
    assert (await ulla.post("/v1/runs:batch", broken)).status_code == 409
    await acting.until_nothing_acts()


async def test_a_schedule_acts_for_whoever_made_it_so_and_for_nobody_else(acting_on_both: Acting) -> None:
    acting = acting_on_both
    await acting.allowed("inner")
    await acting.administer("PUT", "users/ulla/roles", {"roles": ["operator"]})
    ulla, admin = await acting.operator("ulla"), await acting.operator("admin")
    every = {"workflow": "inner", "every_seconds": 1, "overlap": "allow"}
    refused = await ulla.post("/v1/schedules", every | {"name": "s0", "workflow": "plain", "acts_for_me": True})
    assert refused.json()["errors"][0]["pointer"] == "/acts_for_me"
    plain = await ulla.post("/v1/schedules", every | {"name": "for-nobody"})
    assert (plain.status_code, plain.json()["acts_until"]) == (201, None)
    made = await ulla.post("/v1/schedules", every | {"name": "for-ulla", "acts_for_me": True})
    assert made.status_code == 201, made.text
    assert made.json()["acts_until"] is not None
    (given,) = await acting.delegations()
    assert given["purpose"] == "Schedule for-ulla of the workflow inner"

    assert (await acting.outputs_of("for-nobody"))[0].startswith("none: ")
    assert await acting.outputs_of("for-ulla", until="may")
    assert len(await acting.delegations()) == 1, "the end of a run is not the end of its schedule"

    # Whoever starts a run of it by hand is not the one it acts for.
    triggered = await admin.post("/v1/schedules/for-ulla/trigger", None)
    assert (await acting.ended(triggered.json()["runs"][0])).output.startswith("none: ")

    slower = {"every_seconds": 3600}
    assert (await acting.patch(ulla, "for-ulla", slower)).json()["acts_until"] is not None
    assert (await acting.patch(admin, "for-ulla", slower)).json()["acts_until"] is None
    await acting.until_nothing_acts()
    again = await acting.patch(ulla, "for-ulla", {"acts_for_me": True})
    assert again.json()["acts_until"] is not None
    url = f"{acting.installation.app_url}/v1/schedules/for-ulla"
    assert (await acting.installation.http.delete(url, headers=ulla.headers)).status_code == 204
    await acting.until_nothing_acts()


async def test_runs_started_by_hand_act_for_the_schedules_owner_where_it_is_they_who_start_them(
    acting_on_both: Acting,
) -> None:
    acting = acting_on_both
    await acting.allowed("inner")
    await acting.administer("PUT", "users/ulla/roles", {"roles": ["operator"]})
    ulla, admin = await acting.operator("ulla"), await acting.operator("admin")
    hourly = {"workflow": "inner", "every_seconds": 3600, "name": "hourly", "acts_for_me": True}
    assert (await ulla.post("/v1/schedules", hourly)).status_code == 201
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    async def fill(person: Person, hours_ago: int) -> str:
        since = now - timedelta(hours=hours_ago)
        past = {"since": since.isoformat(), "until": (since + timedelta(minutes=1)).isoformat()}
        dry = await person.post("/v1/schedules/hourly/backfill", past | {"dry_run": True})
        assert (len(dry.json()["times"]), dry.json()["runs"]) == (1, [])
        (run_id,) = (await person.post("/v1/schedules/hourly/backfill", past)).json()["runs"]
        return str((await acting.ended(run_id)).output)

    assert await fill(ulla, 3) == "may"
    (run_id,) = (await ulla.post("/v1/schedules/hourly/trigger", None)).json()["runs"]
    assert (await acting.ended(run_id)).output == "may"
    assert (await fill(admin, 2)).startswith("none: "), "the schedule does not act for whoever else fills it"
    assert len(await acting.delegations()) == 1
    assert (await acting.patch(admin, "hourly", {"every_seconds": 3600})).json()["acts_until"] is None
    assert (await fill(ulla, 1)).startswith("none: ")


@pytest.mark.opened_elsewhere
async def test_a_run_says_for_whom_it_acts_and_that_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    async with acting_installation(tmp_path / "evs", monkeypatch, database_url, with_broker=True) as acting:
        ulla = await acting.allowed("patient")
        run = await acting.start(ulla, "patient")
        path = f"/v1/runs/{run['id']}"
        assert run["acting"]["state"] == "acting"
        assert run["acting"]["services"] == [{"resource": acting.orders_url, "scope": ["orders"]}]
        assert datetime.fromisoformat(run["acting"]["until"]) > datetime.now(UTC) + timedelta(days=6)
        assert run["principal"]["username"] == "ulla"
        assert [each["acting"] for each in (await ulla.get("/v1/runs")).json()["items"]] == [None]
        assert (await acting.start(ulla, "plain"))["acting"] is None

        (given,) = await acting.delegations()
        await acting.administer("DELETE", f"users/ulla/delegations/{given['id']}")

        async def state() -> Any:
            found = (await ulla.get(path)).json()["acting"]["state"]
            return found if found != "acting" else None

        assert await wait_until(state, timeout=20) == "stopped"
        ended = await acting.let_go_on(ulla, run)
        assert ended.output.startswith("withdrawn: ")
        assert (await ulla.get(path)).json()["acting"] is None
        await acting.until_nothing_is_kept()


async def test_a_run_says_that_its_time_is_over_or_that_it_never_had_anybody(acting: Acting) -> None:
    ulla = await acting.allowed("brief")
    run = await acting.start(ulla, "brief")

    async def is_expired() -> bool:
        return bool((await ulla.get(f"/v1/runs/{run['id']}")).json()["acting"]["state"] == "expired")

    await wait_until(is_expired)

    def start(connection: Any) -> str:  # as an event does: for nobody
        request = commands.StartRequest(workflow="patient", version=1, queue="default", input=None)
        return commands.start(connection, request)[0]

    run_id = await acting.service.database.transact(start)
    admin = await acting.operator("admin")
    shown = (await admin.get(f"/v1/runs/{run_id}")).json()["acting"]
    assert (shown["state"], shown["until"]) == ("nobody", None)


async def test_a_schedule_that_cannot_be_made_is_given_nothing(acting: Acting) -> None:
    await acting.allowed("inner")
    await acting.administer("PUT", "users/ulla/roles", {"roles": ["operator"]})
    ulla = await acting.operator("ulla")
    body = {"workflow": "inner", "every_seconds": 3600, "name": "hourly", "acts_for_me": True}
    assert (await ulla.post("/v1/schedules", body)).status_code == 201
    assert (await ulla.post("/v1/schedules", body)).status_code == 409
    assert len(await acting.delegations()) == 1
    (listed,) = (await ulla.get("/v1/schedules")).json()["items"]
    shown = (await ulla.get("/v1/schedules/hourly")).json()
    assert listed["acts_until"] == shown["acts_until"] is not None
    assert (await acting.patch(ulla, "hourly", {"acts_for_me": False})).json()["acts_until"] is None
    await acting.until_nothing_acts()


async def test_what_a_cancelled_run_was_given_ends_with_it(acting: Acting) -> None:
    ulla = await acting.allowed("patient")
    run = await acting.start(ulla, "patient")
    await ulla.post(f"/v1/runs/{run['id']}/cancel", {})
    await acting.until_nothing_acts()


async def test_while_the_authservice_is_away_steps_try_again_and_ends_are_told_later(acting_alone: Acting) -> None:
    acting = acting_alone
    ulla = await acting.allowed("persistent")
    cancelled, waiting = await acting.start(ulla, "patient"), await acting.start(ulla, "persistent")
    await acting.installation.stop_auth()
    refused = await ulla.post("/v1/runs", {"workflow": "patient"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    await ulla.post(f"/v1/runs/{cancelled['id']}/cancel", {})
    await acting.ended(cancelled["id"])
    await ulla.post(f"/v1/runs/{waiting['id']}/signals/go-on", True)

    async def has_tried() -> bool:
        def read(connection: Any) -> Any:
            return connection.scalar(select(attempts.c.error).where(attempts.c.run == waiting["id"]))

        return "TokensUnavailable" in (await acting.service.database.read(read) or "")

    await wait_until(has_tried, timeout=20)
    await acting.installation.start_auth()
    assert (await acting.ended(waiting["id"])).output == "may"
    await acting.until_nothing_acts()


@pytest.mark.opened_elsewhere
@pytest.mark.postgresql
async def test_a_worker_beside_the_service_acts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    async with acting_installation(tmp_path / "evs", monkeypatch, postgresql_url, queues=["here"]) as acting:
        ulla = await acting.allowed()
        run = await acting.start(ulla, "my-orders", queue="there")
        for path in FLOWS:
            sys.modules.pop(path.stem, None)
        settings = acting.service.settings.model_copy(update={"queues": ["there"]})
        async with open_engine_only(settings):
            assert (await acting.ended(run["id"])).output == ["an order of ulla"]


async def test_workflows_that_declare_nothing_ask_nobody(acting_alone: Acting) -> None:
    acting = acting_alone
    ulla = await acting.ulla()
    assert (await ulla.get("/v1/workflows")).status_code == 200  # the keys are known now
    await acting.installation.stop_auth()
    run = await acting.start(ulla, "plain")
    assert (await acting.ended(run["id"])).status == "completed"
