import os
from pathlib import Path

import pytest

from lib_events.durable_files import make_folder, write_whole
from lib_events.secret_file import create_secret
from lib_events.settings import Settings

NOBODY = 65534


@pytest.fixture
def on_disk(monkeypatch):
    """What has been put on disk so far, by its number in the file system."""
    found, sync = set(), os.fsync

    def fsync(descriptor):
        sync(descriptor)
        found.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_file_is_on_disk_with_the_names_that_lead_to_it(tmp_path, on_disk):
    path = tmp_path / "folder" / "file"
    write_whole(path, "whole")
    assert {each.stat().st_ino for each in (path, path.parent, tmp_path)} <= on_disk


def test_what_somebody_made_who_died_before_its_name_was_on_disk_is_put_there(tmp_path, on_disk):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text("one")
    assert create_secret(path, lambda: "two") == "one"
    assert tmp_path.stat().st_ino in on_disk


def test_a_data_folder_is_known_as_one_after_a_power_cut(tmp_path, on_disk):
    data = Settings(data=tmp_path / "data").prepare_data()
    assert {(data / ".gitignore").stat().st_ino, data.stat().st_ino, tmp_path.stat().st_ino} <= on_disk


def test_a_folder_may_be_in_one_that_nobody_may_list(tmp_path, monkeypatch):
    outer = tmp_path / "outer"
    outer.mkdir()
    outer.chmod(0o300)
    monkeypatch.chdir(outer)
    if os.getuid() == 0:  # who lists whatever there is
        os.chown(outer, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        with pytest.raises(PermissionError):
            list(Path().iterdir())
        make_folder(Path("folder"))
    finally:
        os.seteuid(os.getuid())
        outer.chmod(0o700)
    assert (outer / "folder").is_dir()
