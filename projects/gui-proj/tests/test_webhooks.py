"""Webhooks on screen: made with a secret shown once, seen to deliver, paused; what was given up on is sent again."""

import asyncio
import html
import json
import re

import pytest

from gui_proj.live import topics_of
from lib_events.testing import wait_until
from lib_events.testing.receiver import receiving, status

NEW = "/webhooks/+new"


@pytest.fixture(scope="module")
def person(product):
    with product.signed_in() as client:
        yield client


@pytest.fixture
async def receiver():
    async with receiving() as found:
        yield found


def plain(page):
    """What a page says, without its marks."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page.text).split()))


def make(person, url, types="evs.run.completed"):
    """Fill in the form; returns the webhook's page and its secret."""
    made = person.submit(NEW, {"url": url, "types": types})
    assert made.status_code == 200, plain(made)
    return re.search(r'href="(/webhooks/[^"]+)">I have it', made.text)[1], re.search(
        r'value="(whsec_[^"]+)"', made.text
    )[1]


async def in_thread(function, *arguments, **options):
    """The receiver answers on this loop, so nothing may hold it."""
    return await asyncio.to_thread(function, *arguments, **options)


async def test_a_webhook_is_made_delivers_and_its_secret_is_shown_once(person, receiver):
    path, secret = await in_thread(make, person, receiver.url)
    assert receiver.url in (await in_thread(person.get, "/webhooks")).text
    started = await in_thread(person.submit, "/workflows/order", {"_from": "json", "_json": json.dumps({})})
    run = started.headers["Location"].rpartition("/")[2]
    await wait_until(lambda: [each.event.subject for each in receiver.received if each.event.subject == run])

    async def is_shown():
        page = await in_thread(person.get, path)
        return page if ">204<" in page.text.replace("</svg>", ">") else None

    page = await wait_until(is_shown)
    assert secret not in page.text
    tested = await in_thread(person.submit, f"{path}/test", {}, page=path)
    assert tested.status_code == 303
    assert "The test was delivered: 204" in plain(await in_thread(person.get, path))
    rotated = await in_thread(person.submit, f"{path}/rotate", {}, page=path)
    assert re.search(r'value="(whsec_[^"]+)"', rotated.text)[1] != secret
    assert "signs too until" in plain(await in_thread(person.get, path))


async def test_it_is_paused_resumed_changed_and_deleted(person, receiver):
    path, _ = await in_thread(make, person, receiver.url, "order.*, evs.run.failed")
    await in_thread(person.submit, f"{path}/pause", {}, page=path)
    page = await in_thread(person.get, path)
    assert "s-paused" in page.text
    assert "Events wait." in plain(page)
    await in_thread(person.submit, f"{path}/resume", {}, page=path)
    assert "s-active" in (await in_thread(person.get, path)).text
    form = await in_thread(person.get, f"{path}/edit")
    assert 'value="order.*, evs.run.failed"' in form.text
    changed = await in_thread(person.submit, f"{path}/edit", {"url": receiver.url, "types": "shop.*"})
    assert changed.status_code == 303
    assert "shop.*" in plain(await in_thread(person.get, path))
    assert (await in_thread(person.submit, f"{path}/delete", {})).headers["Location"] == "/webhooks"
    assert (await in_thread(person.get, path)).status_code == 404


async def test_what_was_given_up_on_is_seen_and_sent_again(person, receiver):
    receiver.answer = status(410)
    path, _ = await in_thread(make, person, receiver.url)
    await in_thread(person.submit, "/workflows/order", {"_from": "json", "_json": "{}"})

    async def is_disabled():
        page = await in_thread(person.get, path)
        return page if "Given up on" in page.text and "s-disabled" in page.text else None

    page = await wait_until(is_disabled, timeout=20)
    assert "Disabled : the receiver answered 410 Gone." in plain(page)
    assert "after 1 attempt:" in plain(page)
    letter = re.search(rf'action="({path}/dead-letters/\d+)"', page.text)[1]
    receiver.answer = status(204)
    before = len(receiver.received)
    await in_thread(person.submit, f"{path}/resume", {}, page=path)
    assert (await in_thread(person.submit, letter, {"verb": "redrive"}, page=path)).status_code == 303
    await wait_until(lambda: len(receiver.received) > before)

    async def is_over():
        return "Given up on" not in (await in_thread(person.get, path)).text

    await wait_until(is_over)


@pytest.mark.parametrize(
    ("form", "control", "words"),
    [
        ({"url": "ftp://example.org/", "types": "order.*"}, "url", "must begin with https://"),
        ({"url": "https://user:secret@example.org/", "types": "order.*"}, "url", "must not have credentials"),
        ({"url": "https://example.org/", "types": "Order!"}, "types", "match pattern"),
        ({"url": "https://example.org/", "types": ""}, "types", "at least 1"),
    ],
)
def test_what_is_wrong_is_said_at_its_control(person, form, control, words):
    refused = person.submit(NEW, form)
    assert refused.status_code == 422
    assert words in html.unescape(re.search(rf'<p class="error" id="{control}-error">([^<]+)', refused.text)[1])
    assert f'value="{form["url"]}"' in refused.text


@pytest.mark.parametrize("path", ["/webhooks/unknown", "/webhooks/in"])
def test_what_is_no_webhook_is_not_found(person, path):
    assert person.get(path).status_code == 404


def test_events_of_webhooks_concern_their_pages():
    event = {"type": "evs.webhook.disabled", "subject": "w1", "data": {}}
    assert topics_of(event) == ["events", "webhooks", "webhook:w1"]
