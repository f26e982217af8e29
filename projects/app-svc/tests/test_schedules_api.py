"""Schedules over HTTP: who may, what is refused and how, and that their runs really start."""

from datetime import UTC, datetime, timedelta
from typing import Any

from lib_auth.events import (
    ClientChanged,
    ClientChangedData,
    ClientDisabled,
    ClientRemoved,
    UserChangedData,
    UserDeleted,
    UserDeletedData,
    UserDisabled,
    UserRolesChanged,
    UserRolesChangedData,
)
from lib_events.testing import wait_until

TABLE = {"name": "people", "data": "name,age\nzoe,3\n"}


def schedule_of(**values: Any) -> dict[str, Any]:
    """A schedule of a built-in workflow that nobody minds when it runs."""
    return {"name": "import", "workflow": "import-table", "input": TABLE, "cron": "0 6 * * mon-fri"} | values


async def make(app: Any, **values: Any) -> dict[str, Any]:
    answer = await app.operator().post("/v1/schedules", schedule_of(**values))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_schedule_is_made_listed_shown_changed_and_deleted(any_app: Any) -> None:
    operator = any_app.operator()
    made = await make(any_app, timezone="Europe/Berlin", tags={"team": "blue"}, jitter_seconds=60)
    assert (made["cron"], made["timezone"], made["overlap"]) == ("0 6 * * mon-fri", "Europe/Berlin", "skip")
    assert (made["principal"], made["principal_name"], made["declared"]) == ("olga", "olga", False)
    page = (await operator.get("/v1/schedules")).json()
    assert [item["name"] for item in page["items"]] == ["import"]
    shown = (await operator.get("/v1/schedules/import")).json()
    assert len(shown["next_times"]) == 5
    assert shown["next_times"][0] == shown["next_at"]
    changed = await operator.request("PATCH", "/v1/schedules/import", json={"every_seconds": 60, "overlap": "allow"})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["every_seconds"], changed.json()["cron"], changed.json()["input"]["name"]) == (
        60,
        None,
        "people",
    )
    assert (changed.json()["overlap"], changed.json()["tags"]) == ("allow", {"team": "blue"})
    assert (await operator.request("DELETE", "/v1/schedules/import")).status_code == 204
    assert (await operator.get("/v1/schedules/import")).status_code == 404


async def test_its_runs_start_by_themselves_in_the_name_of_who_made_it(any_app: Any) -> None:
    await make(any_app, cron=None, every_seconds=1)
    operator = any_app.operator()

    async def first_run() -> Any:
        return (await operator.get("/v1/schedules/import")).json()["last_runs"]

    last = (await wait_until(first_run))[-1]
    run = (await operator.get(f"/v1/runs/{last['id']}")).json()
    assert run["principal"]["subject"] == "olga"
    assert run["tags"]["schedule"] == "import"
    page = await operator.get("/v1/events", params={"types": "evs.schedule.*"})
    types = [event["type"] for event in page.json()["items"]]
    assert types[:2] == ["evs.schedule.created", "evs.schedule.fired"]


async def test_it_is_paused_resumed_triggered_and_backfilled(any_app: Any) -> None:
    operator = any_app.operator()
    await make(any_app, cron=None, every_seconds=3600)
    paused = (await operator.post("/v1/schedules/import/pause", {"note": "stocktaking"})).json()
    assert (paused["paused"], paused["note"], paused["next_at"]) == (True, "stocktaking", None)
    triggered = await any_app.admin().post("/v1/schedules/import/trigger")
    assert triggered.status_code == 202
    (run_id,) = triggered.json()["runs"]
    assert (await operator.get(f"/v1/runs/{run_id}")).json()["principal"]["subject"] == "ada"
    again = [
        (await operator.post("/v1/schedules/import/trigger", headers={"idempotency-key": key})).json()["runs"]
        for key in ("one", "one", "other")
    ]
    assert again[0] == again[1] != again[2]
    now = datetime.now(UTC)
    past = {"since": (now - timedelta(hours=3)).isoformat(), "until": now.isoformat()}
    lacking = await operator.post("/v1/schedules/import/backfill", past | {"dry_run": True})
    assert (len(lacking.json()["times"]), lacking.json()["runs"]) == (3, [])
    filled = await operator.post("/v1/schedules/import/backfill", past)
    assert (filled.status_code, len(filled.json()["runs"])) == (202, 3)
    assert (await operator.post("/v1/schedules/import/backfill", past)).json()["runs"] == []
    assert (await operator.post("/v1/schedules/import/backfill", past | {"dry_run": True})).json()["times"] == []
    (listed,) = (await operator.get("/v1/schedules")).json()["items"]
    shown = (await operator.get("/v1/schedules/import")).json()
    assert len(shown["last_runs"]) == 6
    assert [run["id"] for run in listed["last_runs"]] == [run["id"] for run in shown["last_runs"]][:5]
    ancient = {"since": "0001-01-01T00:00:00+14:00", "until": now.isoformat()}
    refused = await operator.post("/v1/schedules/import/backfill", ancient)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/since")
    resumed = (await operator.post("/v1/schedules/import/resume")).json()
    assert (resumed["paused"], resumed["note"]) == (False, "")
    assert resumed["next_at"] is not None


async def test_the_next_times_of_a_timing_are_told_before_there_is_a_schedule(app: Any, subtests: Any) -> None:
    operator = app.operator()
    berlin = {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "since": "2031-07-01T00:00:00Z"}
    preview = await operator.post("/v1/schedules:preview", berlin)
    assert preview.json()["next_times"] == [f"2031-07-0{day}T04:00:00Z" for day in range(1, 6)]
    once = await operator.post("/v1/schedules:preview", {"times": ["2031-01-01T00:00:00Z", "2001-01-01T00:00:00Z"]})
    assert once.json()["next_times"] == ["2031-01-01T00:00:00Z"]
    assert (await operator.post("/v1/schedules:preview", {"times": ["2001-01-01T00:00:00Z"]})).json() == {
        "next_times": []
    }
    for body, pointer in (({"cron": "61 * * * *"}, "/cron"), ({}, "/cron"), ({"every_seconds": 0}, "/every_seconds")):
        with subtests.test(pointer, body=body):
            refused = await operator.post("/v1/schedules:preview", body)
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert (await operator.get("/v1/schedules")).json()["items"] == []


async def test_schedules_are_for_operators(app: Any, subtests: Any) -> None:
    await make(app)
    narrow = app.client("olga", roles=("operator",), scope="workflows:read workflows:run")
    for who, client in {"member": app.client(), "narrow client": narrow}.items():
        for method, path in (
            ("GET", "/v1/schedules"),
            ("POST", "/v1/schedules"),
            ("POST", "/v1/schedules:preview"),
            ("GET", "/v1/schedules/import"),
            ("PATCH", "/v1/schedules/import"),
            ("DELETE", "/v1/schedules/import"),
            ("POST", "/v1/schedules/import/pause"),
            ("POST", "/v1/schedules/import/resume"),
            ("POST", "/v1/schedules/import/trigger"),
            ("POST", "/v1/schedules/import/backfill"),
        ):
            with subtests.test(who, method=method, path=path):
                assert (await client.request(method, path, json={})).status_code == 403


async def test_what_is_wrong_is_said_with_its_field(app: Any, subtests: Any) -> None:
    operator = app.operator()
    for number, (changes, pointer) in enumerate(
        [
            ({"cron": "61 * * * *"}, "/cron"),
            ({"cron": "0 0 31 2 *"}, "/cron"),
            ({"cron": "* * * * * *"}, "/cron"),
            ({"cron": None}, "/cron"),
            ({"timezone": "Mars/Olympus"}, "/timezone"),
            ({"timezone": "../../etc"}, "/timezone"),
            ({"cron": None, "every_seconds": 60, "timezone": "UTC"}, "/timezone"),
            ({"every_seconds": 60}, "/every_seconds"),
            ({"cron": None, "every_seconds": 0}, "/every_seconds"),
            ({"cron": None, "every_seconds": -1}, "/every_seconds"),
            ({"cron": None, "every_seconds": 1e300}, "/every_seconds"),
            ({"cron": None, "times": []}, "/times"),
            ({"cron": None, "times": ["2020-01-01T00:00:00Z"]}, "/times"),
            ({"cron": None, "times": ["2030-01-01T00:00:00"]}, "/times/0"),
            ({"cron": None, "every_seconds": 60, "start": "9999-12-31T23:00:00Z"}, "/times"),
            ({"until": "2020-01-01T00:00:00Z"}, "/times"),
            ({"since": "2031-01-03T00:00:00Z", "until": "2031-01-02T00:00:00Z"}, "/until"),
            ({"cron": None, "times": ["2030-01-01T00:00:00Z"], "until": "2031-01-01T00:00:00Z"}, "/until"),
            ({"since": "2031-01-01T00:00:00"}, "/since"),
            ({"overlap": "maybe"}, "/overlap"),
            ({"catch_up_window_seconds": 1}, "/catch_up_window_seconds"),
            ({"jitter_seconds": 100_000}, "/jitter_seconds"),
            ({"tags": {"schedule": "mine"}}, "/tags"),
            ({"name": "a/b"}, "/name"),
            ({"workflow": "nobody"}, "/workflow"),
            ({"input": {"name": 7}}, "/input/"),
            ({"note": "\0"}, "/note"),
            ({"unknown": 1}, "/unknown"),
        ]
    ):
        with subtests.test(str(changes), number=number):
            answer = await operator.post("/v1/schedules", schedule_of(**changes))
            assert answer.status_code == 422, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["errors"][0]["pointer"].startswith(pointer), answer.text
    assert (await operator.get("/v1/schedules")).json()["items"] == []


def told_of(user: str, **data: Any) -> UserRolesChangedData:
    return UserRolesChangedData(user=user, username=user, **data)


def client_told(client: str, **data: Any) -> ClientChangedData:
    return ClientChangedData(client=client, name=client, origin="administrator", **data)


TAKEN_AWAY = {
    "a person is disabled": (UserDisabled, UserChangedData(user="olga", username="olga"), "disabled"),
    "a person is deleted": (UserDeleted, UserDeletedData(user="olga"), "removed"),
    "a person loses the role": (UserRolesChanged, told_of("olga", roles=["member"]), "no operator any more"),
    "a client is disabled": (ClientDisabled, client_told("olga"), "disabled"),
    "a client is removed": (ClientRemoved, client_told("olga"), "removed"),
    "a client loses the role": (ClientChanged, client_told("olga", roles=["member"]), "no operator any more"),
}
KEPT = (
    (UserRolesChanged, told_of("olga", roles=["admin"])),
    (ClientChanged, client_told("olga", roles=["operator"])),
    (ClientChanged, client_told("olga")),  # by an AuthService that does not say the roles
)


async def test_who_may_not_any_more_has_no_schedule_that_does(any_app: Any, subtests: Any) -> None:
    await make(any_app)
    other = any_app.client("otto", roles=("operator",))  # whose tokens stay good
    for what, (event_type, data, why) in TAKEN_AWAY.items():
        with subtests.test(what):
            assert not (await other.post("/v1/schedules/import/resume")).json()["paused"]
            for kept in KEPT:
                await any_app.hear(*kept)
            await any_app.hear(event_type, data)

            async def note() -> Any:
                shown = (await other.get("/v1/schedules/import")).json()
                return shown["note"] if shown["paused"] else None

            assert await wait_until(note) == (f"its owner is {why}" if why.startswith("no") else f"its owner was {why}")


async def test_a_schedule_has_a_first_and_a_last_time(app: Any) -> None:
    bounds = {"since": "2031-01-01T07:00:00+01:00", "until": "2031-01-03T06:00:00Z"}
    await make(app, **bounds)
    shown = (await app.operator().get("/v1/schedules/import")).json()
    assert shown["next_times"] == [f"2031-01-0{day}T06:00:00Z" for day in (1, 2, 3)]
    assert (shown["since"], shown["until"]) == ("2031-01-01T06:00:00Z", "2031-01-03T06:00:00Z")
    changed = await app.operator().request("PATCH", "/v1/schedules/import", json={"cron": "0 6 * * *"})
    assert (changed.json()["since"], changed.json()["until"]) == (None, None), "a new timing is said whole"


async def test_names_and_ids_are_not_taken_twice(app: Any) -> None:
    operator = app.operator()
    await make(app)
    assert (await operator.post("/v1/schedules", schedule_of())).json()["type"] == "urn:evs:problem:schedule-exists"
    for path in ("/v1/schedules/none/trigger", "/v1/schedules/none/pause", "/v1/schedules/none/resume"):
        answer = await operator.post(path)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:evs:problem:schedule-not-found")
    for run_id in ("schedule~import~20300101T060000Z", "started~0123456789abcdef0123456789abcdef"):
        answer = await app.client().post("/v1/runs", {"workflow": "import-table", "input": TABLE, "id": run_id})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/id")


async def test_openapi_shows_how_a_schedule_is_made(app: Any) -> None:
    document = (await app.http.get("/openapi.json")).json()
    assert {"get", "post"} <= document["paths"]["/v1/schedules"].keys()
    schema = document["components"]["schemas"]["ScheduleBody"]
    assert schema["examples"][0]["cron"] == "0 6 * * mon-fri"
