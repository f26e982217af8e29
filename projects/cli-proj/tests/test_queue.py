"""`evs queue` against a real product."""


def test_a_queue_is_limited_paused_shown_and_resumed(product):
    limited = product.evs("queue", "limit", "shelf", "--concurrency", "5", "--rate", "100/1m")
    assert limited.out == "open: shelf, at most 5 under way, at most 100/1m begin\n", limited.err
    assert product.evs("queue", "limit", "shelf", "--rate", "5/s").out.endswith("at most 5/1s begin\n")
    assert product.evs("queue", "limit", "shelf", "--rate", "none").out == "open: shelf, at most 5 under way\n"
    paused = product.evs("queue", "pause", "shelf", "--note", "the shelf is wet")
    assert paused.out.startswith("paused: shelf")
    started = product.evs("run", "start", "order", "-p", "quantity=1", "--queue", "shelf", "-o", "json")
    run = started.json["id"]
    assert started.json["status"] == "queued"
    listed = product.evs("queue", "list")
    assert "the shelf is wet" in listed.out
    assert "0 of 5" in listed.out
    shown = product.evs("queue", "show", "shelf", "-o", "json").json
    assert (shown["queued"], shown["concurrency"], shown["rate"]) == (1, 5, None)
    assert "the shelf is wet" in product.evs("queue", "show", "shelf").out
    assert product.evs("queue", "resume", "shelf").out.startswith("open: shelf")
    assert product.evs("run", "watch", run).code == 0
    assert product.evs("queue", "limit", "shelf", "--concurrency", "none").out == "open: shelf, no limits\n"


def test_each_key_of_a_queue_has_a_rate(product):
    limited = product.evs("queue", "limit", "drawer", "--key", "customer", "--per-key", "2", "--rate-per-key", "10/1m")
    words = "turns by customer, at most 2 of each under way, at most 10/1m of each begin"
    assert limited.out == f"open: drawer, {words}\n", limited.err
    kept = product.evs("queue", "limit", "drawer", "--concurrency", "9", "--per-key", "none")
    assert kept.out == "open: drawer, at most 9 under way, turns by customer, at most 10/1m of each begin\n"
    assert "10/1m" in product.evs("queue", "show", "drawer").out
    refused = product.evs("queue", "limit", "drawer", "--key", "none")
    assert (refused.code, "must have a key" in refused.err) == (2, True), refused.err


def test_a_burst_of_starts_is_one_run(product):
    burst = ("run", "start", "order", "--delay", "3600", "--debounce", "cart", "--debounce-limit", "7200", "-p")
    first, second = product.evs(*burst, "quantity=1"), product.evs(*burst, "quantity=2")
    assert (first.code, first.out) == (0, second.out), first.err
    assert product.evs("run", "show", second.out.strip(), "-o", "json").json["input"]["quantity"] == 2
    assert product.evs("run", "start", "order", "--debounce-limit", "5").code == 2
    assert product.evs("run", "cancel", second.out.strip()).code == 0


def test_a_run_takes_turns_with_whom_its_start_says(product):
    started = product.evs("run", "start", "order", "--queue-key", "ada", "--delay", "3600")
    assert started.code == 0, started.err
    assert product.evs("run", "cancel", started.out.strip()).code == 0
    refused = product.evs("run", "start", "order", "--queue", "team/mail")
    assert (refused.code, "queue" in refused.err) == (2, True), refused.err


def test_limits_that_cannot_be_are_explained(product):
    nothing = product.evs("queue", "limit", "shelf")
    assert (nothing.code, "which limit?" in nothing.err) == (2, True)
    wrong = {("--concurrency", "0"): "from 1 on", ("--concurrency", "many"): "or none", ("--rate", "5"): "100/1m"}
    wrong |= {("--per-key", "0"): "--per-key must be", ("--rate-per-key", "many"): "--rate-per-key must be"}
    for option, hint in wrong.items():
        refused = product.evs("queue", "limit", "shelf", *option)
        assert (refused.code, hint in refused.err) == (2, True), refused.err
