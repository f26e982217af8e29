"""Rooms are never the interpreter they are made from."""

import pytest

from lib_pipeline.rooms import clear_if_unsound

WHOLE = "home = /usr/bin\nimplementation = CPython\nversion_info = 3.13.0\ninclude-system-site-packages = false\n"


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_an_environment_whose_making_broke_off_is_made_anew(tmp_path, length):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "pyvenv.cfg").write_text(WHOLE[:length])
    clear_if_unsound(tmp_path / "room")
    assert not (tmp_path / "room").exists()


def test_an_environment_that_lost_its_configuration_is_made_anew(tmp_path):
    (tmp_path / "room" / "bin").mkdir(parents=True)
    clear_if_unsound(tmp_path / "room")
    assert not (tmp_path / "room").exists()


def test_a_whole_environment_stays_and_none_is_no_trouble(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "pyvenv.cfg").write_text(WHOLE)
    clear_if_unsound(tmp_path / "room")
    clear_if_unsound(tmp_path / "other")
    assert (tmp_path / "room").exists()
