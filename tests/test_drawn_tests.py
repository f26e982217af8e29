"""Which tests a run leaves out: never one that is on one database only, and never by name."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Item:
    """A test as pytest collects it."""

    def __init__(self, member, name, database=None):
        self.path, self.parent, self.originalname = ROOT / "projects" / member / "tests" / "test_x.py", None, name
        self.nodeid = f"{self.path}::{name}[{database}]"
        self.callspec = type("Callspec", (), {"params": {"database": database} if database else {}})


@pytest.fixture(scope="module")
def conftest():
    specification = importlib.util.spec_from_file_location("root_conftest", ROOT / "conftest.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def on_both(member, names):
    return [Item(member, name, database) for name in names for database in ("sqlite", "postgresql")]


@pytest.mark.parametrize("member", ["auth-svc", "app-svc"])
def test_users_of_databases_are_tested_on_sqlite_and_in_part_on_postgresql(conftest, monkeypatch, member):
    monkeypatch.setattr("lib_events.testing.drawn.EVERYTHING", False)
    tests = [*on_both(member, "abcdef"), Item(member, "alone")]
    rounds = [conftest._drawn(tests, seed) for seed in range(40)]
    assert all({item for item in tests if not conftest._is_second_time(item)} <= kept for kept in rounds)
    assert {len(kept) for kept in rounds} == {7 + 2}
    assert set.union(*rounds) == {*tests}


@pytest.mark.parametrize("member", ["lib-events", "lib-workflows"])
def test_a_library_alone_is_tested_on_both_databases_and_beside_others_in_part_on_postgresql(conftest, member):
    tests = on_both(member, "abcdef")
    assert conftest._drawn(tests, 7) == {*tests}
    rounds = [conftest._drawn([*tests, Item("cli-proj", "alone")], seed) for seed in range(40)]
    assert {len(kept) for kept in rounds} == {6 + 2 + 1}
    assert {*tests} <= set.union(*rounds)


def test_each_function_is_there_once_and_on_postgresql_where_it_can_be(conftest):
    tests = [*on_both("auth-svc", "abc"), Item("auth-svc", "alone"), Item("app-svc", "alone")]
    kept = conftest._each_once(tests)
    assert {(item.path.parts[-3], item.originalname) for item in kept} == {
        *(("auth-svc", name) for name in ("a", "b", "c", "alone")),
        ("app-svc", "alone"),
    }
    assert len(kept) == 5
    assert [item for item in kept if item.nodeid.endswith("[sqlite]")] == []
