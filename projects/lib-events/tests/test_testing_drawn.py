"""What a run of the tests draws: the same by the same seed, and in a few runs all there is."""

import pytest

from lib_events.testing import drawn
from lib_events.testing.drawn import SEED, Draw, new_seed

MANY = range(20)


@pytest.fixture(autouse=True)
def _draws(monkeypatch):
    monkeypatch.setattr(drawn, "EVERYTHING", False)


def test_the_same_seed_draws_the_same_in_the_order_there_is():
    found = Draw("a test", 7).some(MANY, 5)
    assert found == Draw("a test", 7).some(MANY, 5) == sorted(set(found))
    assert len(found) == 5
    assert found not in (Draw("a test", 8).some(MANY, 5), Draw("another", 7).some(MANY, 5))


def test_in_a_few_runs_everything_is_drawn():
    assert {each for seed in range(40) for each in Draw("a test", seed).some(MANY, 5)} == {*MANY}


def test_all_is_done_where_that_is_asked_for_or_there_is_no_more(monkeypatch):
    assert Draw("a test", 7).some(MANY, 20) == MANY
    monkeypatch.setattr(drawn, "EVERYTHING", True)
    assert Draw("a test", 7).some(MANY, 5) == MANY


def test_a_run_has_the_seed_that_is_asked_for_and_says_it(monkeypatch, draw, request, capsys):
    monkeypatch.setenv("EVS_TEST_SEED", "7")
    assert new_seed() == 7
    assert str(draw).endswith(f"does what EVS_TEST_SEED={request.config.stash[SEED]} draws")
