"""Workflows as tools: what agents see, start, wait for, tell and are told, by the official SDK's client."""

import asyncio
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import jsonschema
import pytest
from agent import ERAS, agent_at, refused, told, tools_of
from mcp import MCPError

from app_svc.agents import toolbox
from app_svc.agents.workflow_tools import tool_name
from lib_events.testing import wait_until
from lib_events.testing.ports import free_ports

FLOWS = ["agent_flows"]


@pytest.fixture
async def flows(run_app: Any, make_settings: Any, issuer: Any) -> Any:
    """An AppService with the workflows of `agent_flows`."""
    async with run_app(make_settings(workflows=FLOWS), issuer) as app:
        yield app


@pytest.fixture
async def agent(flows: Any) -> Any:
    """Of alice; in a task of its own, which must be the one that lets it go."""
    connected, done = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def hold() -> None:
        async with agent_at(flows.url, flows.issuer.token()) as client:
            connected.set_result(client)
            await done.wait()

    holding = asyncio.create_task(hold())
    await asyncio.wait([holding, connected], return_when=asyncio.FIRST_COMPLETED)
    yield connected.result() if connected.done() else await holding
    done.set()
    await holding


async def start(client: Any, workflow: str, value: Any = None, **more: Any) -> dict[str, Any]:
    given = more if value is None else {"input": value} | more
    return await told(client, tool_name(workflow), given)


@pytest.mark.parametrize("mode", ERAS)
async def test_a_tool_starts_a_run_for_its_person_and_tells_the_result(any_app: Any, mode: str) -> None:
    alice = any_app.client()
    async with agent_at(any_app.url, alice.token, mode=mode) as client:
        assert client.protocol_version == {"legacy": "2025-11-25", "auto": "2026-07-28"}[mode]
        answer = await start(client, "order", {"quantity": 2})
    assert answer["status"] == "completed"
    assert answer["result"]["quantity"] == 2
    run = (await alice.get(f"/v1/runs/{answer['run']}")).json()
    assert run["principal"] == {"subject": "alice", "username": "alice"}
    assert run["tags"] == {"agent": "tests"}, "people find what agents have started"
    assert run["output"] == answer["result"]


async def test_clients_are_told_what_each_tool_takes_gives_and_may_do(agent: Any) -> None:
    tools = await tools_of(agent)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in tools)
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["type"] == "object"
    weigh = tools["start_weigh"]
    assert weigh.description.startswith("Weigh a parcel.")
    jsonschema.validate({"input": {"weight": 1, "inside": [{"weight": 2}]}}, weigh.input_schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"input": {"weight": 1, "inside": [{"weight": "heavy"}]}}, weigh.input_schema)
    assert "input" not in tools["start_patient"].input_schema["properties"]
    looks = {name for name, tool in tools.items() if tool.annotations.read_only_hint}
    assert looks == {"find_runs", "show_run", "wait_for_run", "find_approvals"}
    assert tools["cancel_run"].annotations.idempotent_hint
    assert tools["start_order"].annotations.open_world_hint
    assert "start_access-request" not in tools, "its input is for an event of ours alone"


def test_names_that_do_not_fit_are_kept_apart() -> None:
    assert tool_name("order") == "start_order"
    names = [tool_name(each) for each in ("a.b", "a_b", "a-b", "x" * 128, "x" * 127)]
    assert len({*names}) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)


async def test_inputs_and_results_that_are_no_objects_go_through(agent: Any) -> None:
    assert (await start(agent, "count.up", 41))["result"] == 42
    parcel = {"weight": 1, "inside": [{"weight": 2, "inside": None}]}
    assert (await start(agent, "weigh", parcel))["result"] == parcel


async def test_bad_input_is_refused_field_by_field_and_starts_nothing(agent: Any) -> None:
    why = await refused(agent, "start_weigh", {"input": {"weight": "heavy", "inside": 3}})
    assert "/input/weight" in why
    assert "/input/inside" in why
    assert "/input" in await refused(agent, "start_weigh", {})
    assert "takes no input" in await refused(agent, "start_patient", {"input": 1})
    assert "/wait_seconds" in await refused(agent, "start_patient", {"wait_seconds": 3600})
    assert "/surprise" in await refused(agent, "start_patient", {"surprise": 1})
    assert "/surprise" in await refused(agent, "cancel_run", {"run": "r", "surprise": 1})
    assert "/run" in await refused(agent, "show_run", {"run": "no such/id"})
    assert "/status" in await refused(agent, "find_runs", {"status": ["asleep"]})
    assert "cursor" in await refused(agent, "find_runs", {"cursor": "made-up"})
    assert (await told(agent, "find_runs"))["runs"] == []


async def test_a_key_means_one_run_however_often_it_is_given(agent: Any) -> None:
    first, again = [await start(agent, "count.up", 1, idempotency_key="once") for _ in range(2)]
    assert first["run"] == again["run"]
    assert "idempotency key" in await refused(
        agent,
        "start_count_up_" + tool_name("count.up")[-8:],
        {
            "input": 2,
            "idempotency_key": "once",
        },
    )
    assert len((await told(agent, "find_runs"))["runs"]) == 1


async def test_a_run_that_goes_on_is_told_something_and_waited_for(agent: Any) -> None:
    begun = await start(agent, "patient", wait_seconds=0)
    run = {"run": begun["run"]}
    assert begun["run"] in begun["next"]
    waiting = await told(agent, "wait_for_run", run | {"wait_seconds": 0.2})
    assert "next" in waiting
    assert waiting["waiting_for"]
    key = {"name": "go-on", "payload": "well", "idempotency_key": "k"}
    for _ in range(2):
        await told(agent, "signal_run", run | key)
    assert (await told(agent, "wait_for_run", run))["result"] == "well"
    shown = await told(agent, "show_run", run | {"steps": True})
    assert [step["status"] for step in shown["steps"]] == ["completed"]


async def test_a_run_is_asked_and_answers_or_rejects(agent: Any) -> None:
    run = {"run": (await start(agent, "answering", wait_seconds=0))["run"], "name": "ask"}
    assert "must not be negative" in await refused(agent, "update_run", run | {"payload": -1})
    assert (await told(agent, "update_run", run | {"payload": 4}))["reply"] == 8
    late = {"run": (await start(agent, "patient", wait_seconds=0))["run"], "name": "ask", "wait_seconds": 0}
    assert (await told(agent, "update_run", late))["status"] == "pending"


async def test_an_approval_is_decided_by_whom_it_names(flows: Any, agent: Any) -> None:
    run = (await start(agent, "asking", "user:bob", wait_seconds=0))["run"]
    async with agent_at(flows.url, flows.issuer.token("bob")) as bobs:

        async def asked() -> Any:
            return (await told(bobs, "find_approvals"))["approvals"]

        (approval,) = await wait_until(asked)
        assert approval["text"] == "Ship it?"
        decision = {"approval": approval["approval"], "approved": True}
        assert "names you" in await refused(agent, "decide_approval", decision)
        assert "/approved" in await refused(bobs, "decide_approval", decision | {"approved": "yes"})
        assert (await told(bobs, "decide_approval", decision))["status"] == "approved"
        assert "decided already" in await refused(bobs, "decide_approval", decision)
        assert (await told(bobs, "find_approvals"))["approvals"] == []
    assert (await told(agent, "wait_for_run", {"run": run}))["result"] is True


async def test_a_run_is_cancelled(agent: Any) -> None:
    run = {"run": (await start(agent, "patient", wait_seconds=0))["run"]}
    await told(agent, "cancel_run", run | {"reason": "changed my mind"})
    ended = await told(agent, "wait_for_run", run)
    assert (ended["status"], "next" in ended) == ("cancelled", False)


async def test_a_run_that_fails_is_told_as_a_failure_without_our_files(agent: Any) -> None:
    answer = await agent.call_tool("start_failing", {})
    assert answer.is_error
    failed = answer.structured_content
    assert failed["error"] == {"type": "RuntimeError", "message": "out of paper"}
    assert "agent_flows.py" not in answer.content[0].text
    assert "agent_flows.py" not in str(await told(agent, "show_run", {"run": failed["run"], "steps": True}))


async def test_a_result_that_is_too_large_is_cut_and_says_so(agent: Any) -> None:
    answer = await start(agent, "long-winded", 200_000)
    assert "result" not in answer
    assert "only the first 20000 of 200002 characters" in answer["result_cut"]["cut"]
    shown = await told(agent, "show_run", {"run": answer["run"]})
    assert len(shown["result"]["begins"]) == 20_000


async def test_an_answer_that_is_too_large_as_a_whole_says_what_to_do(
    agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await start(agent, "count.up", number)
    monkeypatch.setattr(toolbox, "ANSWER_CHARACTERS", 300)
    assert "ask for less" in await refused(agent, "find_runs")
    page = await told(agent, "find_runs", {"limit": 1})
    assert (
        page["runs"][0]["run"]
        != (await told(agent, "find_runs", {"limit": 1, "cursor": page["next_cursor"]}))["runs"][0]["run"]
    )


async def test_somebody_elses_run_is_as_if_it_did_not_exist(flows: Any, agent: Any) -> None:
    run = (await start(agent, "patient", wait_seconds=0))["run"]
    async with agent_at(flows.url, flows.issuer.token("bob")) as bobs:
        for name in ("show_run", "wait_for_run", "cancel_run", "signal_run", "update_run"):
            more = {"name": "go-on"} if name in ("signal_run", "update_run") else {}
            assert "no run" in await refused(bobs, name, {"run": run} | more), name
        assert (await told(bobs, "find_runs"))["runs"] == []
    async with agent_at(flows.url, flows.operator().token) as operators:
        assert [each["run"] for each in (await told(operators, "find_runs"))["runs"]] == [run]
        assert (await told(operators, "find_runs", {"mine": True}))["runs"] == []


async def test_who_may_not_sees_no_such_tool_and_is_refused_by_name(flows: Any) -> None:
    async with agent_at(flows.url, flows.issuer.token(roles=())) as nobodys:
        assert await tools_of(nobodys) == {}
        assert "role member" in await refused(nobodys, "start_patient")
        assert "role member" in await refused(nobodys, "start_what-nobody-has"), "nor do they learn what there is"
        assert "role member" in await refused(nobodys, "find_runs")
    async with agent_at(flows.url, flows.issuer.token(scope="workflows:read")) as readers:
        assert {*await tools_of(readers)} == {"find_runs", "show_run", "wait_for_run", "find_approvals"}
        assert "workflows:run" in await refused(readers, "start_patient")
        assert "approvals:decide" in await refused(readers, "decide_approval", {"approval": "a", "approved": True})


async def test_a_program_sees_nothing_that_acts_for_a_person(flows: Any) -> None:
    async with agent_at(flows.url, flows.issuer.token("tests")) as machines:  # its subject is the client itself
        tools = await tools_of(machines)
        assert "start_patient" in tools
        assert "start_for-me" not in tools
        assert "Only a person" in await refused(machines, "start_for-me")
    async with agent_at(flows.url, flows.issuer.token("ulla")) as ullas:
        assert "https://orders.example" in (await tools_of(ullas))["start_for-me"].description


async def test_a_tool_that_nobody_has_is_an_error_of_the_protocol(agent: Any) -> None:
    for name in ("start_nothing", "start_access-request", "drop_database", "x" * 10_000):
        with pytest.raises(MCPError, match="there is no tool"):
            await agent.call_tool(name, {})


async def test_what_fails_here_is_told_without_its_reason(
    flows: Any, agent: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(type(flows.service.database), "read", fail)
    why = await refused(agent, "find_runs")
    assert "its log has the reason" in why
    assert "the password is 1234" in caplog.text


@pytest.mark.parametrize("mode", ERAS)
async def test_a_restart_loses_no_agent_and_no_run(run_app: Any, make_settings: Any, issuer: Any, mode: str) -> None:
    (port,) = free_ports(1)
    settings = make_settings(app_url=f"http://127.0.0.1:{port}", workflows=FLOWS)
    settings = settings.model_copy(update={"app_port": port})
    token = issuer.token(aud=settings.app_url)
    async with AsyncExitStack() as first, AsyncExitStack() as connected:
        await first.enter_async_context(run_app(settings, issuer))
        client = await connected.enter_async_context(agent_at(settings.app_url, token, mode=mode))
        run = {"run": (await start(client, "patient", wait_seconds=0))["run"]}
        await first.aclose()
        async with run_app(settings, issuer):
            await told(client, "signal_run", run | {"name": "go-on", "payload": "still here"})
            assert (await told(client, "wait_for_run", run))["result"] == "still here"
            await connected.aclose()


async def test_many_agents_are_served_at_once(flows: Any) -> None:
    async def count(number: int) -> int:
        async with agent_at(flows.url, flows.issuer.token(f"person-{number}")) as client:
            return (await start(client, "count.up", number))["result"]

    assert await asyncio.gather(*map(count, range(8))) == list(range(1, 9))


def test_the_sdk_is_loaded_for_the_first_agent_only() -> None:
    program = "import sys, app_svc.app; assert not {'mcp', 'mcp_types', 'httpx2'} & {*sys.modules}, 'loaded'"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
