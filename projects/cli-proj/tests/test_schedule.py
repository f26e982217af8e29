"""`evs schedule` against a real product."""

import pytest

TABLE = '{"name": "people", "data": "name,age\\nzoe,3\\n"}'


def test_a_schedule_is_made_shown_paused_triggered_backfilled_and_deleted(product):
    name = "imports"
    made = product.evs(
        "schedule", "create", name, "import-table", "--cron", "0 6 * * mon-fri", "--timezone", "Europe/Berlin",
        "--input", TABLE, "--overlap", "buffer_one", "--tag", "shelf=upper", "-o", "json",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert (made.json["cron"], made.json["timezone"], made.json["overlap"]) == (
        "0 6 * * mon-fri",
        "Europe/Berlin",
        "buffer_one",
    )
    listed = product.evs("schedule", "list")
    assert "imports" in listed.out
    assert "0 6 * * mon-fri (Europe/Berlin)" in listed.out
    edited = product.evs(
        "schedule", "edit", name, "--cron", "0 6 * * mon-fri", "--until", "2099-01-01T00:00:00Z", "--overlap", "allow",
        "-o", "json",
    )  # fmt: skip
    assert edited.code == 0, edited.err
    changed = {each: edited.json[each] for each in ("timezone", "until", "overlap", "tags", "input")}
    assert changed == {
        "timezone": "UTC",
        "until": "2099-01-01T00:00:00Z",
        "overlap": "allow",
        "tags": {"shelf": "upper"},
        "input": made.json["input"],
    }
    renamed = product.evs("schedule", "edit", name, "-p", "name=pets", "-p", "data=name\\nrex\\n", "-o", "json")
    assert renamed.json["input"]["name"] == "pets"
    assert product.evs("schedule", "edit", name, "--jitter", "5m").out.startswith("active: imports, next in ")
    run = product.evs("schedule", "trigger", name).out.strip()
    assert product.evs("run", "show", run, "-o", "json").json["tags"]["shelf"] == "upper"
    assert len(product.evs("schedule", "backfill", name, "--since", "7d", "--dry-run").out.split()) == 5
    filled = product.evs("schedule", "backfill", name, "--since", "7d")
    assert len(filled.out.split()) == 5
    assert "has its run" in product.evs("schedule", "backfill", name, "--since", "6d").err
    shown = product.evs("schedule", "show", name)
    assert run in shown.out
    assert "trigger" in shown.out
    assert product.evs("schedule", "pause", name, "--note", "stocktaking").out.startswith("paused")
    assert "stocktaking" in product.evs("schedule", "show", name).out
    assert product.evs("schedule", "resume", name).out.startswith("active: imports, next in ")
    assert product.evs("schedule", "delete", name).code == 0
    assert name not in product.evs("schedule", "list").out


def test_the_next_times_are_told_before_there_is_a_schedule(product):
    told = product.evs("schedule", "preview", "--cron", "0 6 * * *", "--since", "2099-07-01T00:00:00Z")
    assert [line.split()[0] for line in told.out.splitlines()] == [f"2099-07-0{day}T06:00:00Z" for day in range(1, 6)]
    assert "none of its times" in product.evs("schedule", "preview", "--at", "2001-01-01T00:00:00Z").err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "s", "order"), 2, "--cron"),
        (("create", "s", "order", "--cron", "61 * * * *"), 2, "valid minute"),
        (("create", "s", "order", "--cron", "@daily", "--timezone", "Mars"), 2, "Europe/Berlin"),
        (("create", "s", "order", "--every", "soon"), 2, "--every must be"),
        (("create", "s", "order", "--every", "0s"), 2, "every_seconds"),
        (("create", "s", "order", "--at", "yesterday"), 2, "--at must be"),
        (("create", "s", "nobody", "--cron", "@daily"), 3, "workflow"),
        (("create", "s", "order", "--cron", "@daily", "-p", "quantity=0"), 2, "quantity"),
        (("preview",), 2, "--cron"),
        (("preview", "--cron", "61 * * * *"), 2, "valid minute"),
        (("edit", "none"), 2, "what is to be different"),
        (("edit", "none", "--overlap", "allow"), 3, "schedule"),
        (("edit", "none", "--jitter", "soon"), 2, "--jitter must be"),
        (("show", "none"), 3, "schedule"),
        (("trigger", "none"), 3, "schedule"),
        (("pause", "../runs"), 3, "Not Found"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(product, arguments, code, words):
    answer = product.evs("schedule", *arguments)
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert words in answer.err
