"""`evs api` and `evs open`: what has no command of its own, and the pages."""

import json


def test_a_request_is_sent_as_whoever_acts_here_and_its_answer_printed(product):
    body = json.dumps({"workflow": "order", "input": {"quantity": 2}})
    run = product.evs("api", "POST", "/v1/runs", "-i", body, "--header", "prefer=wait=20").json
    assert (run["status"], run["output"]["quantity"]) == ("completed", 2)
    found = product.evs("api", "GET", f"/v1/runs?q={run['id']}&status=completed").json
    assert [item["id"] for item in found["items"]] == [run["id"]]


def test_refusals_have_the_exit_codes_of_other_commands(product):
    assert product.evs("api", "GET", "/v1/runs/nowhere").code == 3
    assert product.evs("api", "POST", "/v1/runs", "-i", "{}").code == 2
    elsewhere = product.evs("api", "GET", "https://example.org/v1/runs")
    assert (elsewhere.code, "must begin with /v1/" in elsewhere.err) == (2, True)
    upwards = product.evs("api", "GET", "/v1/runs/../admin/users")
    assert (upwards.code, "must not have a segment" in upwards.err) == (2, True)
    assert product.evs("api", "GET", "/v1/admin/users").code == 4  # this machine's own client is no administrator


def test_the_address_of_a_page_is_printed(product):
    gui = product.services()["gui-proj"]["url"]
    assert product.evs("open").out == f"{gui}/\n"
    assert product.evs("open", "/runs", "-o", "json").json == {"url": f"{gui}/runs"}
    assert product.evs("open", "//example.org").code == 2
