"""The supervisor's socket."""

import asyncio
import stat

import pytest

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
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


async def test_a_supervisor_that_is_there_and_says_nothing_is_no_absent_one(tmp_path):
    async def never(_request):
        await asyncio.Event().wait()

    control = Control(tmp_path, never)
    await control.start()
    with pytest.raises(CommandFailed, match="has not answered within") as raised:
        await ask(tmp_path, "status", timeout=0.1)
    assert raised.value.code == ExitCode.TIMEOUT
    await control.stop()


async def test_nobody_listens_is_said_so(tmp_path):
    with pytest.raises(NobodyListens):
        await ask(tmp_path, "status")
