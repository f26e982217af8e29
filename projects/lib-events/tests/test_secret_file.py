from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from lib_events.secret_file import SecretFileExposed, create_secret, read_secret, write_secret


def test_a_secret_is_written_for_its_owner_only_and_leaves_no_rest(tmp_path):
    path = tmp_path / "secrets" / "evs-gui.secret"
    write_secret(path, "one")
    write_secret(path, "two")
    assert read_secret(path) == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_secret_that_cannot_be_written_leaves_the_one_of_before_and_no_rest(tmp_path):
    path = tmp_path / "secret"
    write_secret(path, "one")
    with pytest.raises(UnicodeEncodeError):
        write_secret(path, "half of it \ud800")
    assert read_secret(path) == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_others_can_read_is_refused(tmp_path):
    path = tmp_path / "secret"
    write_secret(path, "one")
    path.chmod(0o640)
    with pytest.raises(SecretFileExposed, match="mode 640"):
        read_secret(path)


def test_of_several_makers_one_wins_and_all_read_its_secret(tmp_path):
    path = tmp_path / "secret"
    numbers = count()
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: create_secret(path, lambda: str(next(numbers))), range(50)))
    assert len(secrets) == 1
    assert list(tmp_path.iterdir()) == [path]
