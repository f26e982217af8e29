import os
import sys
from pathlib import Path

import pytest

from app_svc.workflow_loading import WorkflowsNotLoaded, load_workflows

OWN = """
from dataclasses import dataclass
from lib_workflows import Context, EventType, workflow

@dataclass
class Bell:
    tone: str

Rang = EventType("house.bell.rang", Bell)

@workflow(name="{name}", version={version})
async def answer(ctx: Context, bell: Bell) -> str:
    await ctx.publish(Rang, bell)
    return bell.tone
"""


@pytest.fixture(autouse=True)
def forget_modules() -> object:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_the_built_in_workflows_are_each_of_another_type() -> None:
    loaded = load_workflows([])
    assert [(workflow.name, workflow.type) for workflow in loaded.workflows.newest()] == [
        ("access-request", "human approval"),
        ("import-table", "fan-out/fan-in"),
        ("order", "orchestrated saga"),
        ("welcome-user", "choreography"),
    ]
    names = {event_type.name for event_type in loaded.event_types}
    assert {"table.rows.accepted", "order.payment.captured", "welcome.message.sent"} <= names


def test_a_file_brings_its_workflows_and_its_event_types(tmp_path: Path) -> None:
    loaded = load_workflows([write(tmp_path, "doorbell_one.py", OWN.format(name="answer", version=1))])
    assert loaded.workflows.find("answer").type == "workflow"
    assert "house.bell.rang" in {event_type.name for event_type in loaded.event_types}


def test_a_file_that_was_saved_again_within_a_second_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for version in (1, 2):  # of the same length
        path = write(tmp_path, "doorbell_again.py", OWN.format(name="answer", version=version))
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert load_workflows([path]).workflows.find("answer").version == version
        del sys.modules["doorbell_again"]


def test_a_file_may_bring_nothing_but_subscriptions(tmp_path: Path) -> None:
    text = """
from lib_events.subscription import Subscription, subscribe

@subscribe("order.*", durable="order-watch")
async def watch(event): ...

same = watch
"""
    loaded = load_workflows([write(tmp_path, "watching.py", text)])
    assert [subscription.durable for subscription in loaded.subscriptions] == ["order-watch"]


def test_a_module_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "doorbell_two.py", OWN.format(name="answer", version=1))
    monkeypatch.syspath_prepend(tmp_path)
    assert load_workflows(["doorbell_two"]).workflows.find("answer").version == 1


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("absent.py", None, "must name a file that exists"),
        ("no_such_module_here", None, "importable module"),
        ("app_svc.no_such_module_here", None, "importable module"),
        ("broken_flow.py", "def (", "must load without an error, got SyntaxError"),
        (
            "needs_flow.py",
            "import not_installed\n",
            "needs_flow.py must load without an error, got ModuleNotFoundError",
        ),
        ("empty_flow.py", "x = 1\n", "must have a workflow or a subscription in it, got none"),
        ("json.py", OWN.format(name="answer", version=1), "must not be named like the module 'json'"),
        ("twice_flow.py", OWN.format(name="order", version=1), "must not share a name and a version"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_that_says_what_to_do(
    tmp_path: Path, name: str, text: str | None, problem: str
) -> None:
    given = name if text is None else write(tmp_path, name, text)
    with pytest.raises(WorkflowsNotLoaded, match=problem):
        load_workflows([given])


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, module: str, entry: str) -> None:
    """A package as installing it would leave it: a module, and metadata that names its workflows."""
    write(folder, f"{module}.py", OWN.format(name="answer", version=1))
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[evs.workflows]\ndoorbell = {entry}\n")
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("entry", ["doorbell_installed", "doorbell_installed:answer"])
def test_an_installed_package_brings_its_workflows_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    install(tmp_path, monkeypatch, module="doorbell_installed", entry=entry)
    loaded = load_workflows([])
    assert loaded.workflows.find("answer").name == "answer"
    assert "house.bell.rang" in {event_type.name for event_type in loaded.event_types}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("doorbell_gone", "must load, got ModuleNotFoundError"),
        ("doorbell_broken:Bell", "must name a workflow or a module"),
    ],
)
def test_an_installed_package_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, problem: str
) -> None:
    install(tmp_path, monkeypatch, module="doorbell_broken", entry=entry)
    with pytest.raises(WorkflowsNotLoaded, match=f"'doorbell'.*{problem}"):
        load_workflows([])
