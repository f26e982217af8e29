"""Runs, events and the catalogue of a real product, as this machine's own client."""

import json
import re
import signal
import subprocess

import pytest


def test_the_catalogue_is_listed_and_shown(product):
    names = [workflow["name"] for workflow in product.evs("workflow", "list", "-o", "json").json]
    assert {"order", "import-table", "access-request", "welcome-user"} <= set(names)
    shown = product.evs("workflow", "show", "order")
    assert "hold_seconds" in shown.out


def test_a_workflow_says_what_its_runs_take(product):
    assert product.evs("run", "start", "order", "--wait").code == 0
    size = product.evs("workflow", "show", "order", "--size", "-o", "json").json
    assert size["runs"]["completed"] >= 1
    assert size["bytes"] > size["rows"] > 0
    assert "completed" in product.evs("workflow", "show", "order", "--size").out


def test_a_run_is_started_and_its_id_is_the_only_thing_on_standard_output(product):
    answer = product.evs("run", "start", "order")
    assert answer.code == 0
    assert answer.out.strip().isalnum()


def test_waiting_for_a_run_prints_its_result_and_exits_with_zero(product):
    answer = product.evs("run", "start", "order", "-p", "quantity=2", "--wait", "-o", "json")
    assert answer.code == 0
    assert answer.json["output"]["quantity"] == 2


def test_what_a_run_logged_is_printed_and_followed_until_it_ends(product):
    product.evs("run", "start", "order", "--id", "logged", "--wait")
    lines = product.evs("run", "logs", "logged").out.splitlines()
    assert any("info    app_svc.workflows.order [" in line and "booking a carrier" in line for line in lines)
    found = product.evs("run", "logs", "logged", "-o", "json").json
    assert [line["number"] for line in found] == list(range(1, len(lines) + 1))
    product.evs("run", "start", "order", "-p", "hold_seconds=600", "--id", "followed")
    process = product.start("run", "logs", "followed", "--follow", "-o", "jsonl")
    first = json.loads(process.stdout.readline())
    assert first["message"].startswith("order followed: ")
    product.evs("run", "cancel", "followed")
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert product.evs("run", "logs", "absent").code == 3


def test_waiting_for_a_run_that_fails_exits_with_one(product):
    answer = product.evs("run", "start", "order", "-p", "card=tok_declined", "--wait", "-o", "json")
    assert answer.code == 1
    assert answer.json["error"]["type"] == "CardDeclined"


def test_watching_in_a_pipe_prints_one_line_per_change_from_the_start(product):
    answer = product.evs("run", "start", "order", "--watch")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert any("step completed    reserve_stock" in line for line in lines)
    assert "completed after" in lines[-1]


def test_watching_as_json_lines_prints_cloud_events(product):
    answer = product.evs("run", "start", "order", "--watch", "-o", "jsonl")
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert events[-1]["type"] == "evs.run.completed"
    assert all(event["specversion"] == "1.0" for event in events)


def test_a_watched_run_goes_on_when_the_watcher_leaves_and_the_way_back_is_printed(product):
    process = product.start("run", "start", "order", "-p", "hold_seconds=600", "--id", "left-alone", "--watch")
    assert process.stdout is not None
    assert "run started" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "evs run watch left-alone" in err
    assert product.evs("run", "show", "left-alone", "-o", "json").json["status"] in ("running", "waiting")
    product.evs("run", "cancel", "left-alone")
    assert product.evs("run", "watch", "left-alone").out.splitlines()[-1].split()[1] == "cancelled"


def test_a_timeout_exits_with_124_and_the_run_goes_on(product):
    answer = product.evs(
        "run", "start", "order", "-p", "hold_seconds=600", "--id", "slow", "--wait", "--timeout", "0.5"
    )
    assert answer.code == 124
    assert "evs run watch slow" in answer.err
    assert product.evs("run", "show", "slow", "-o", "json").json["status"] in ("running", "waiting")
    product.evs("run", "cancel", "slow")


def test_the_same_idempotency_key_is_the_same_run(product):
    first = product.evs("run", "start", "order", "--idempotency-key", "k1")
    second = product.evs("run", "start", "order", "--idempotency-key", "k1")
    assert first.out == second.out, second.err


def test_the_same_id_with_another_input_is_a_conflict(product):
    assert product.evs("run", "start", "order", "--id", "mine").code == 0
    answer = product.evs("run", "start", "order", "--id", "mine", "-p", "quantity=3")
    assert answer.code == 5


def test_a_file_becomes_a_text_parameter(product, tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("name,age\nAda,36\nBob,x\nCyd,41\n")
    answer = product.evs(
        "run", "start", "import-table", "-p", "name=people", "-p", f"data=@{table}", "--wait", "-o", "json"
    )
    assert answer.code == 0, answer.err
    assert answer.json["output"]["rows"] == 3


def test_input_comes_from_a_file_and_from_standard_input(product, tmp_path):
    file = tmp_path / "order.json"
    file.write_text('{"quantity": 1}')
    assert product.evs("run", "start", "order", "--input", f"@{file}", "--wait").code == 0
    assert product.evs("run", "start", "order", "--input", "@-", "--wait", stdin='{"quantity": 1}').code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "start", "nope"), 3, "nope"),
        (("run", "start", "order", "-p", "quantity=many"), 2, "/input/quantity"),
        (("run", "start", "order", "--input", "{oops"), 2, "--input must be JSON"),
        (("run", "start", "order", "--input", "{}", "-p", "quantity=1"), 2, "must not be used together"),
        (("run", "show", "nope"), 3, "nope"),
        (("run", "cancel", "nope"), 3, "nope"),
        (("run", "show", ""), 2, "must not be empty"),
        (("run", "show", "."), 2, "must not be ."),
        (("run", "view", "nope", ".."), 2, "must not be .."),
        (("webhook", "delete", ".."), 2, "must not be .."),
        (("webhook", "delete", ""), 2, "must not be empty"),
        (("run", "show", "left?right=1"), 2, "run_id"),
        (("run", "show", "../workflows"), 3, "Not Found"),
        (("run", "show", "\udcff"), 2, "run_id"),
        (("run", "start", "order", "--input", "NaN"), 2, "cannot be sent"),
        (("run", "start", "order", "--input", '"\\ud800"'), 2, "cannot be sent"),
        (("run", "start", "order", "--idempotency-key", "ключ"), 2, "cannot be sent"),
        (("run", "start", "order", "--idempotency-key", "a\nb"), 2, "cannot be sent"),
        (("run", "start", "order", "--timeout", "3"), 2, "--wait or --watch"),
        (("run", "list", "--limit", "0"), 2, "--limit"),
        (("run", "list", "--since", "99999999999d"), 2, "--since"),
        (("run", "list", "--since", "yesterday"), 2, "--since"),
        (("run", "list", "--status", "happy"), 2, "status"),
        (("event", "publish", "evs.user.registered"), 4, "evs."),
        (("event", "publish", "Not A Type"), 2, "type"),
        (("event", "show", "first"), 2, "1.42"),
        (("event", "show", "1.²"), 2, "1.42"),
        (("event", "tail", "--no-follow", "--type", "evs.user.*"), 4, "admin"),
        (("approval", "approve", "nope"), 4, "evs auth login"),
        (("admin", "user", "list"), 4, "evs auth login --admin"),
        (("workflow", "show", "nope"), 3, "nope"),
        (("context", "use", "nope"), 3, "nope"),
        (("context", "add", "a b", "--app-url", "https://a.example", "--auth-url", "https://b.example"), 2, "'a b'"),
    ],
)
def test_bad_input_says_what_to_do_and_exits_with_its_code(product, arguments, code, words):
    answer = product.evs(*arguments)
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert words in answer.err


def test_an_answer_that_is_no_json_names_the_address_that_gave_it(product):
    page = product.evs("status", "--json").json["urls"]["auth"] + "/login?"
    answer = product.with_variables(EVS_APP_URL=page, EVS_TOKEN="t").evs("run", "list")
    assert answer.code == 1
    assert "in JSON, got text/html" in answer.err


def test_a_terminal_that_cannot_show_a_character_gets_its_number(product):
    product.evs("run", "start", "order", "--wait")
    answer = product.evs_anew("run", "list", PYTHONIOENCODING="ascii")
    assert answer.code == 0, answer.err
    assert "\\u2713 completed" in answer.out


def test_a_folder_in_which_no_token_can_be_kept_keeps_nobody_from_looking(product):
    kept = product.folder / ".evs" / "secrets" / "evs-local.tokens.json"
    kept.unlink(missing_ok=True)
    kept.mkdir()
    try:
        assert product.evs("run", "list").code == 0
    finally:
        kept.rmdir()


def test_a_garbled_token_is_not_signed_in(product):
    answer = product.with_variables(EVS_TOKEN="garbled").evs("run", "list")
    assert answer.code == 4
    assert "EVS_TOKEN" in answer.err


def test_a_run_is_cancelled_undone_and_retried(product):
    product.evs("run", "start", "order", "-p", "hold_seconds=600", "--id", "unwanted")
    product.wait_for(lambda: product.evs("run", "show", "unwanted", "-o", "json").json["status"] == "waiting")
    assert product.evs("run", "cancel", "unwanted", "--reason", "changed my mind").code == 0
    product.wait_for(lambda: product.evs("run", "show", "unwanted", "-o", "json").json["status"] == "cancelled")
    shown = product.evs("run", "show", "unwanted")
    assert "undo release_stock" in shown.out
    assert "↶ undone" in shown.out
    assert "2 of 2 undone" in shown.out
    assert product.evs("run", "cancel", "unwanted").code == 5


def test_a_signal_is_sent(product):
    product.evs("run", "start", "order", "-p", "hold_seconds=600", "--id", "listening")
    assert product.evs("run", "signal", "listening", "hello", "--input", '{"a": 1}').code == 0
    product.evs("run", "cancel", "listening")


def test_a_view_of_a_run_is_printed_and_a_run_is_forked(product):
    run = product.evs("run", "start", "order", "--wait", "-o", "json").json
    assert product.evs("run", "view", run["id"], "stage").out.startswith("shipped as EVS-")
    forked = product.evs("run", "fork", run["id"]).out.strip()
    assert forked not in ("", run["id"])
    assert product.evs("run", "watch", forked).code == 0
    compared = product.evs("run", "compare", forked, run["id"])
    assert compared.code == 0, compared.err
    assert "the runs themselves differ in output" in compared.out
    assert re.search(rf"book_carrier +input, output .*{forked}.*{run['id']}", compared.out)
    as_json = product.evs("run", "compare", forked, run["id"], "--limit", "1", "-o", "json").json
    assert (len(as_json["differences"]), as_json["fields"]) == (1, ["output"])
    assert "do not differ" in product.evs("run", "compare", forked, forked).err
    assert product.evs("run", "compare", forked, "nope").code == 3


def test_runs_are_listed_that_have_all_of_some_tags(product):
    run = product.evs("run", "start", "order", "--tag", "shop=7", "--tag", "till=left", "--wait", "-o", "json").json

    def listed(*tags):
        options = [option for tag in tags for option in ("--tag", tag)]
        return [each["id"] for each in product.evs("run", "list", *options, "-o", "json").json]

    assert listed("shop=7", "till") == listed("till=left", "shop=7") == [run["id"]]
    assert listed("shop=7", "till=right") == []


def test_a_run_is_exported_as_a_test_replays_it(product):
    run = product.evs("run", "start", "order", "--wait", "-o", "json").json
    exported = product.evs("run", "export", run["id"]).json
    assert exported["run"]["id"] == run["id"]
    assert [row["position"] for row in exported["history"]] == list(range(1, len(exported["history"]) + 1))
    assert product.evs("run", "export", "nope").code == 3


def test_dead_letters_are_listed(product):
    answer = product.evs("dead-letter", "list", "-o", "json")
    assert (answer.code, answer.json) == (0, [])


@pytest.mark.parametrize("verb", ["show", "redrive", "discard"])
def test_a_dead_letter_that_is_not_there_is_not_found(product, verb):
    answer = product.evs("dead-letter", verb, "4711")
    assert answer.code == 3
    assert "there is no dead letter 4711" in answer.err


def test_runs_are_listed_with_filters(product):
    product.evs("run", "start", "order", "--id", "tagged", "--tag", "team=blue", "--wait")
    found = product.evs("run", "list", "--tag", "team=blue", "--status", "completed,failed", "-o", "jsonl").out
    assert [json.loads(line)["id"] for line in found.splitlines()] == ["tagged"]


def test_an_own_event_is_published_and_seen_by_who_follows(product):
    data = {"message": "m1", "user": "u1", "username": "kim", "subject": "Hello"}
    process = product.start("event", "tail", "--subject", "t1", "-o", "jsonl", "--all")
    assert process.stdout is not None
    try:
        sent = product.evs("event", "publish", "welcome.message.sent", "--subject", "t1", "-d", json.dumps(data))
        assert sent.code == 0
        event = json.loads(process.stdout.readline())
        assert (event["id"], event["subject"], event["data"]) == (sent.out.strip(), "t1", data)
        assert product.evs("event", "show", event["position"], "-o", "json").json["id"] == event["id"]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def test_a_reader_that_has_enough_ends_the_output_quietly(product):
    command = " ".join(product.command("event", "tail", "--all", "--no-follow")) + " | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=product.folder,
        env=product.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_contexts_are_added_listed_and_used(person):
    local = {item["name"]: item for item in person.evs("context", "list", "-o", "json").json}["local"]
    urls = ("--app-url", local["app_url"], "--auth-url", local["auth_url"])
    assert person.evs("context", "add", "team", *urls).code == 0
    assert person.evs("context", "use", "team").code == 0
    items = person.evs("context", "list", "-o", "json").json
    assert [item["name"] for item in items if item["current"]] == ["team"]
    answer = person.evs("run", "list")
    assert answer.code == 4, "a named context brings no credentials"
    assert person.evs("run", "list", "--context", "local").code == 0
