"""The supervisor's socket."""

import stat

import pytest

from cli_proj.supervise.control import SOCKET, Control, NobodyListens, ask


async def answer(request):
    return {"asked": request}


async def test_only_the_owner_can_speak_to_the_supervisor(tmp_path):
    control = Control(tmp_path, answer)
    await control.start()
    try:
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600
        assert await ask(tmp_path, "status") == {"asked": "status"}
    finally:
        await control.stop()
    assert not (tmp_path / SOCKET).exists()


async def test_a_data_folder_with_a_path_too_long_for_a_socket_works(tmp_path):
    data = tmp_path / ("d" * 60) / ("e" * 60)
    data.mkdir(parents=True)
    control = Control(data, answer)
    await control.start()
    try:
        aside = (data / SOCKET).readlink()
        assert stat.S_IMODE(aside.parent.stat().st_mode) == 0o700
        assert await ask(data, "down") == {"asked": "down"}
    finally:
        await control.stop()
    assert not aside.parent.exists()
    assert not (data / SOCKET).is_symlink()


async def test_a_socket_that_a_killed_supervisor_left_behind_is_replaced(tmp_path):
    (tmp_path / SOCKET).touch()
    control = Control(tmp_path, answer)
    await control.start()
    assert await ask(tmp_path, "status") == {"asked": "status"}
    await control.stop()


async def test_nobody_listens_is_said_so(tmp_path):
    with pytest.raises(NobodyListens):
        await ask(tmp_path, "status")
