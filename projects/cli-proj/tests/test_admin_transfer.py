"""The file of an export: whole or not there, for its owner alone."""

import os
import threading

import pytest

from cli_proj.commands.admin_transfer import _keep


def test_an_export_that_is_interrupted_leaves_the_one_of_before(tmp_path):
    file = tmp_path / "configuration.json"
    file.write_text("the one of before")
    with pytest.raises(UnicodeEncodeError):
        _keep(file, "half of it \ud800")
    assert file.read_text() == "the one of before"
    assert list(tmp_path.iterdir()) == [file]


def test_an_export_is_for_its_owner_alone_whatever_was_there(tmp_path):
    file, link = tmp_path / "configuration.json", tmp_path / "latest.json"
    file.write_text("readable by all")
    file.chmod(0o644)
    link.symlink_to(file)
    _keep(link, "people")
    assert (link.is_symlink(), file.read_text(), file.stat().st_mode & 0o777) == (True, "people", 0o600)
    with pytest.raises(FileNotFoundError):
        _keep(tmp_path / "nowhere" / "configuration.json", "people")
    assert not (tmp_path / "nowhere").exists()


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    _keep(pipe, "people")
    reader.join(30)
    assert (read, pipe.is_fifo()) == (["people"], True)
