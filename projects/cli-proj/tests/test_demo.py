"""`evs demo`: the real thing, without a terminal."""

import signal


def test_the_demo_plays_to_the_end_stops_what_it_started_and_exits_with_zero(shell):
    confused = shell.with_variables(EVS_APP_URL="http://127.0.0.1:9", EVS_DATABASE_URL="postgresql://nowhere/x")
    answer = confused.evs("demo")
    assert answer.code == 0, answer.out + answer.err
    for step in ("1  The AppService is called without a token: 401", "2  The GUI sends", "3  The GUI exchanges"):
        assert step in answer.out
    for step in ("4  The GUI calls the AppService with the JWT", "the JWT has expired: 401, refresh, 200"):
        assert step in answer.out
    summary = answer.out.partition("WORKFLOW  ")[2]
    for workflow in ("import-table", "order", "access-request", "welcome-user"):
        assert workflow in summary
    assert "undo release_stock" in answer.out
    assert "GUI  http://127.0.0.1:" in summary
    assert shell.evs("status", "--data", ".evs/demo").code == 3
    assert shell.evs("up", "--gui-port", "1", "--auth-port", "1").code == 2, "its folder does not spoil .evs"


def test_an_interrupted_demo_stops_its_product(shell):
    process = shell.start("demo")
    shell.wait_for(lambda: process.poll() is not None or (shell.folder / ".evs/demo/logs/gui-proj.log").exists())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert shell.evs("status", "--data", ".evs/demo").code == 3
