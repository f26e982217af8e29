"""`evs up`, `status`, `down`: real services on free ports."""

import os
import re
import signal
import socket
import stat

import pytest

from cli_proj.supervise.process_facts import children

FREE_PORTS = ("--gui-port", "0", "--auth-port", "0", "--app-port", "0")
MY_FLOWS = '''"""Mine."""

from lib_workflows import Context, Update, workflow

name_given = Update("name-given", str, str)


@workflow(name="greet", version=1)
async def greet(ctx: Context, name: str) -> str:
    """Greet somebody whose other name comes later."""
    call = await ctx.wait_update(name_given)
    await call.reply("thanks")
    return f"Hello {name} {call.value}"
'''
SERVICES = {"nats", "auth-svc", "app-svc", "gui-proj"}


def test_up_starts_everything_status_tells_of_it_and_down_stops_it(shell):
    process = shell.start("up", *FREE_PORTS)
    shell.wait_for(lambda: process.poll() is not None or (shell.folder / ".evs" / "context.json").exists())
    status = shell.evs("status", "-o", "json").json
    assert {service["service"] for service in status["services"]} == SERVICES
    assert all(service["status"] == "ready" for service in status["services"])
    pids = [service["pid"] for service in status["services"]]

    data = shell.folder / ".evs"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert (data / ".gitignore").read_text() == "*\n"
    for secret in ("context.json", "secrets/evs-local.secret", "up.sock", "logs/app-svc.log"):
        assert stat.S_IMODE((data / secret).stat().st_mode) == 0o600

    answer = shell.evs("down")
    out, err = process.communicate(timeout=20)
    assert (answer.code, process.returncode) == (0, 0)
    assert not any(shell.is_alive(pid) for pid in pids)
    assert not (data / "context.json").exists()
    assert not (data / "secrets" / "evs-local.secret").exists()
    assert status["urls"]["gui"] in out
    assert f"password in {data}/initial-admin-password" in out, "a password is printed to a terminal only"
    assert "✓ app-svc" in err
    assert shell.evs("status").code == 3


def test_a_second_up_on_the_same_data_is_refused_and_names_the_way_out(product):
    answer = product.evs("up", *FREE_PORTS)
    assert answer.code == 5
    assert "runs on" in answer.err
    assert "evs down" in answer.err
    assert product.evs("status").code == 0


def test_a_taken_port_is_refused_with_its_option_before_anything_starts(shell):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = shell.evs("up", "--gui-port", "0", "--auth-port", "0", "--app-port", port)
    assert answer.code == 5
    assert "--app-port" in answer.err
    assert not (shell.folder / ".evs" / "logs").exists()


def test_workers_on_sqlite_are_refused_with_the_reason(shell):
    answer = shell.evs("up", *FREE_PORTS, "--workers", "2")
    assert answer.code == 2
    assert "one writer" in answer.err
    assert "EVS_DATABASE_URL=postgresql://" in answer.err


def test_workflows_that_do_not_exist_are_refused(shell):
    answer = shell.evs("up", *FREE_PORTS, "--workflows", "my_flows.py")
    assert answer.code == 2
    assert "my_flows.py" in answer.err


def test_somebody_elses_folder_is_not_taken_for_data(shell):
    (shell.folder / "thesis.txt").write_text("years of work")
    answer = shell.evs("up", *FREE_PORTS, "--data", ".")
    assert answer.code == 1
    assert "thesis.txt" in answer.err


def test_commands_without_a_product_leave_somebody_elses_folder_alone(shell):
    strange = shell.folder / "strange"
    strange.mkdir()
    assert shell.evs("down", "--data", "strange").code == 0
    assert shell.evs("admin", "user", "reset-password", "admin", "--data", "strange").code == 3
    assert list(strange.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(shell):
    shell.folder.chmod(0o500)
    answer = shell.evs("up", *FREE_PORTS)
    assert answer.code == 1
    assert "must be writable" in answer.err


def test_killed_services_are_started_again_watched_runs_go_on_and_ctrl_c_stops_everything(shell):
    remote = shell.with_variables(SSH_CONNECTION="203.0.113.9 50000 198.51.100.7 22", USER="kim")
    with remote.running() as process:
        before = shell.services()["gui-proj"]
        os.kill(before["pid"], signal.SIGKILL)
        shell.wait_for(lambda: shell.services()["gui-proj"]["restarts"] == 1)
        shell.wait_for(lambda: shell.services()["gui-proj"]["status"] == "ready")
        watcher = shell.start("run", "start", "order", "-p", "hold_seconds=3", "--watch")
        assert watcher.stdout is not None
        assert "run started" in watcher.stdout.readline()
        os.kill(shell.services()["app-svc"]["pid"], signal.SIGKILL)
        out, err = watcher.communicate(timeout=60)
        assert (watcher.returncode, "completed after" in out) == (0, True), err
        services = shell.services()
        assert services["gui-proj"]["pid"] != before["pid"]
        assert services["gui-proj"]["url"] == before["url"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "gui-proj was ended by SIGKILL; starting it again" in err
    assert err.rstrip().endswith("stopped")
    assert not any(shell.is_alive(service["pid"]) for service in services.values())
    assert re.search(r"ssh (-L \d+:127\.0\.0\.1:\d+ ){3}kim@198\.51\.100\.7", out)


def test_when_the_supervisor_is_killed_no_service_is_left_and_up_and_down_still_work(shell):
    def kill(process):
        pids = [service["pid"] for service in shell.services().values()]
        pids += [grandchild for pid in pids for grandchild in children(pid)]
        assert len(pids) > len(SERVICES), "nats-server itself is a grandchild"
        process.kill()
        shell.wait_for(lambda: not any(shell.is_alive(pid) for pid in pids))

    for _ in range(2):
        with shell.running() as process:
            assert shell.evs("workflow", "list").code == 0
            kill(process)
    assert (shell.folder / ".evs" / "context.json").exists()
    answer = shell.evs("down")
    assert (answer.code, "nothing runs" in answer.err) == (0, True)
    assert not (shell.folder / ".evs" / "context.json").exists()


def test_detach_returns_when_everything_is_ready_and_down_finds_it(shell):
    answer = shell.evs("up", "--detach", *FREE_PORTS)
    try:
        assert answer.code == 0, answer.err
        assert "evs down" in answer.err
        assert shell.services()["gui-proj"]["url"] in answer.out
        assert shell.evs("status").code == 0
    finally:
        assert shell.evs("down").code == 0
    assert shell.evs("status").code == 3


def test_a_detached_start_that_is_interrupted_leaves_nothing_behind(shell):
    process = shell.start("up", "--detach", *FREE_PORTS)
    shell.wait_for(lambda: shell.evs("status").code != 3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    shell.wait_for(lambda: shell.evs("status").code == 3)


def test_detach_hands_on_why_it_could_not_start(product):
    answer = product.evs("up", "--detach", *FREE_PORTS)
    assert answer.code == 5
    assert "runs on" in answer.err


def test_own_workflows_are_loaded_and_reloaded_when_their_file_changes(shell):
    flows = shell.folder / "my_flows.py"
    source = MY_FLOWS
    flows.write_text(source)
    with shell.running("--workflows", "my_flows.py", "--reload"):
        assert shell.evs("run", "start", "greet", "--input", '"Ada"', "--id", "g1").code == 0
        assert shell.evs("run", "update", "g1", "name-given", "--input", '"Lovelace"').out == "thanks\n"
        shell.evs("run", "watch", "g1")
        assert shell.evs("run", "show", "g1", "-o", "json").json["output"] == "Hello Ada Lovelace"
        flows.write_text(source.replace('"greet"', '"greet-all"'))
        shell.wait_for(lambda: "greet-all" in shell.evs("workflow", "list", "-o", "json").out)


def test_doctor_finds_a_running_product_healthy_and_names_the_missing_keyring(product):
    answer = product.evs("doctor", "-o", "json")
    findings = {finding["check"]: finding for finding in answer.json}
    assert answer.code == 0, answer.out
    assert findings["AppService"]["status"] == "ok"
    assert findings["clock"]["status"] == "ok"
    assert findings["keyring"]["status"] == "warning"
    assert "--insecure-storage" in findings["keyring"]["advice"]


def test_doctor_looks_at_the_product_of_the_given_data_folder_only(product):
    answer = product.evs("doctor", "--data", "elsewhere", "-o", "json")
    findings = {finding["check"]: finding for finding in answer.json}
    assert "AppService" not in findings
    assert "evs up --data" in findings["context"]["advice"]


def test_doctor_says_when_the_services_of_a_context_do_not_answer(product):
    nowhere = product.with_variables(EVS_APP_URL="https://127.0.0.1:9", EVS_AUTH_URL="https://127.0.0.1:9")
    answer = nowhere.evs("doctor", "-o", "json")
    findings = {finding["check"]: finding for finding in answer.json}
    assert answer.code == 1
    assert findings["AppService"]["found"] == "does not answer at https://127.0.0.1:9"
