"""`evs webhook` against a real product; nobody answers at the URL."""

import pytest

URL = "https://127.0.0.1.invalid/hook"


def test_a_webhook_is_made_shown_tested_paused_rotated_and_deleted(product):
    made = product.evs("webhook", "create", URL, "--type", "order.*", "--type", "shop.order.placed", "-o", "json").json
    assert made["secret"].startswith("whsec_")
    assert made["types"] == ["order.*", "shop.order.placed"]
    webhook = made["id"]
    listed = product.evs("webhook", "list", "-o", "json").json
    assert [item["id"] for item in listed] == [webhook]
    assert "secret" not in listed[0]
    tested = product.evs("webhook", "test", webhook)
    assert (tested.code, tested.out.split(":")[0]) == (1, "not delivered")
    shown = product.evs("webhook", "show", webhook)
    assert "evs.webhook.tested" in shown.out
    assert made["secret"] not in shown.out
    assert product.evs("webhook", "pause", webhook).out.startswith("paused")
    assert product.evs("webhook", "resume", webhook).out.startswith("active")
    rotated = product.evs("webhook", "rotate", webhook)
    assert "whsec_" in rotated.out
    assert "not shown again" in rotated.err
    assert product.evs("webhook", "delete", webhook).code == 0
    assert product.evs("webhook", "list", "-o", "json").json == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("webhook", "create", URL), 2, "--type"),
        (("webhook", "create", "http://127.0.0.1/", "--type", "*"), 2, "https://"),
        (("webhook", "create", "https://10.0.0.1/", "--type", "*"), 2, "public address"),
        (("webhook", "create", URL, "--type", "evs.user.*"), 4, "admin"),
        (("webhook", "show", "wh_nope"), 3, "webhook"),
        (("webhook", "test", "../runs"), 3, "Not Found"),
    ],
)
def test_what_is_wrong_with_a_webhook_is_said(product, arguments, code, words):
    answer = product.evs(*arguments)
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert words in answer.err
