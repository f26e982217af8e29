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
    run = product.evs("schedule", "trigger", name).out.strip()
    assert product.evs("run", "show", run, "-o", "json").json["tags"]["shelf"] == "upper"
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
        (("show", "none"), 3, "schedule"),
        (("trigger", "none"), 3, "schedule"),
        (("pause", "../runs"), 3, "Not Found"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(product, arguments, code, words):
    answer = product.evs("schedule", *arguments)
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert words in answer.err
