"""One webhook: whether it gets through, what was sent, what was given up on, and what one can do about it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import htpy as h
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, counted, csrf_field, empty, notice, pill
from gui_proj.icons import icon
from gui_proj.moments import ago, ahead, seconds_words, utc_words
from gui_proj.page import heading
from gui_proj.resources import DeadLetter, Delivery, Webhook
from gui_proj.screens.webhooks import ANSWERED, WebhookDraft, crumbs, form_page, link_to_webhook, secret_page
from gui_proj.visit import Visit

MOST_DELIVERIES: Final = 30
MOST_LETTERS: Final = 20
REFRESH_SECONDS: Final = 2  # nothing tells of a delivery, there are too many


async def show(visit: Visit) -> Response:
    webhook = await _find(visit)
    path = f"/v1{link_to_webhook(webhook['id'])}"
    deliveries, letters = await asyncio.gather(
        visit.get(f"{path}/deliveries", limit=MOST_DELIVERIES), _dead_letters(visit, webhook)
    )
    live = f"webhook:{webhook['id']}"
    every = REFRESH_SECONDS if webhook["state"] in {"active", "interrupted"} else None
    return await visit.page(
        webhook["url"],
        h.div("#webhook-head", data_live=live, data_every=every)[_head(visit, webhook)],
        h.div("#webhook-body", data_live=live)[
            _letters_card(visit, webhook, letters),
            card(_deliveries(deliveries["items"]), title="Last deliveries"),
            _facts_card(visit, webhook),
        ],
    )


async def _find(visit: Visit) -> Webhook:
    if visit.path("id") == "in":  # the AppService has another list there
        raise HTTPException(404)
    found: Webhook = await visit.get(f"/v1{link_to_webhook(visit.path('id'))}")
    return found


async def _dead_letters(visit: Visit, webhook: Webhook) -> list[DeadLetter]:
    """What it was given up on; for operators to see."""
    if not visit.may_manage:
        return []
    listing = await visit.get("/v1/dead-letters", subscription=f"webhook:{webhook['id']}", limit=MOST_LETTERS)
    found: list[DeadLetter] = listing["items"]
    return found


def _head(visit: Visit, webhook: Webhook) -> h.Node:
    return [
        heading(
            webhook["url"],
            above=h.a(href="/webhooks")["Webhooks"],
            below=h.div(".under")[
                pill(webhook["state"]), h.span(".muted")["sends ", h.code[", ".join(webhook["types"])]]
            ],
            beside=_actions(visit, webhook),
        ),
        _why_nothing_is_sent(webhook),
    ]


def _why_nothing_is_sent(webhook: Webhook) -> h.Node:
    if webhook["state"] == "active":
        return None
    upcoming = webhook["next_attempt_at"]
    return notice(
        [
            h.b[webhook["state"].capitalize()],
            webhook["reason"] and f": {webhook['reason']}",
            webhook["failures"] > 0 and f"; {counted(webhook['failures'], 'failure')} in a row",
            upcoming and ["; next attempt ", ahead(upcoming)],
            ". Events wait." if webhook["state"] != "disabled" else ".",
        ],
        tone="bad" if webhook["state"] == "disabled" else "info",
    )


def _actions(visit: Visit, webhook: Webhook) -> h.Node:
    address, active = link_to_webhook(webhook["id"]), webhook["state"] == "active"
    return [
        _action(visit, f"{address}/test", "Send a test", "publish"),
        _action(visit, f"{address}/pause", "Pause", "pause")
        if active
        else _action(visit, f"{address}/resume", "Resume", "play", style="primary"),
        h.a(".button", href=f"{address}/edit")[icon("copy"), "Change"],
        _action(visit, f"{address}/rotate", "New secret", "key"),
        h.a(".button.danger", href=f"{address}/delete")[icon("cross"), "Delete"],
    ]


def _action(visit: Visit, address: str, label: str, drawing: str, *, style: str = "") -> h.Element:
    return h.form(method="post", action=address)[
        csrf_field(visit.csrf), h.button(class_=style or None, type="submit")[icon(drawing), label]
    ]


def _deliveries(deliveries: Sequence[Delivery]) -> h.Element:
    if not deliveries:
        return empty("publish", "Nothing was sent yet", "What is sent appears here; a test is not kept.")
    names = ("Event", "Answer", "Took", "Sent")
    return h.div(".scroll")[
        h.table(".schedules")[
            h.caption(".hidden")["Last deliveries"],
            h.thead[h.tr[(h.th(scope="col")[name] for name in names)]],
            h.tbody[(_delivery(each) for each in deliveries)],
        ]
    ]


def _delivery(delivery: Delivery) -> h.Element:
    error = delivery["error"]
    return h.tr[
        h.td[h.code[delivery["event_type"]], h.div(".sub.mono", title=delivery["event_id"])[delivery["event_id"]]],
        h.td[
            h.span(class_=["pill", "s-failed" if error else "s-completed"])[
                icon("cross" if error else "check"), str(delivery["status"] or "no answer")
            ],
            error and h.div(".sub", title=error)[error],
        ],
        h.td(".nowrap")[f"attempt {delivery['attempt']} · {seconds_words(delivery['duration_ms'] / 1000)}"],
        h.td(".nowrap")[ago(delivery["sent_at"])],
    ]


def _letters_card(visit: Visit, webhook: Webhook, letters: Sequence[DeadLetter]) -> h.Node:
    """Only where something was given up on."""
    if not letters:
        return None
    return card(
        h.ul(".rows")[
            (
                h.li(id=f"letter-{each['id']}")[
                    h.div(".setting")[
                        h.div[
                            h.code[each["event_type"] or each["event_id"]],
                            h.div(".sub", title=each["error"])[
                                f"after {counted(each['attempts'], 'attempt')}: {each['error']} · ",
                                ago(each["dead_at"]),
                            ],
                        ],
                        _letter_actions(visit, webhook, each),
                    ]
                ]
                for each in letters
            )
        ],
        title="Given up on",
        style="undo-bad",
    )


def _letter_actions(visit: Visit, webhook: Webhook, letter: DeadLetter) -> h.Element:
    if letter["status"] == "redriven":
        return h.span(".muted")["is sent again"]
    address = link_to_webhook(webhook["id"], "dead-letters", str(letter["id"]))
    return h.form(".actions", method="post", action=address)[
        csrf_field(visit.csrf),
        h.button(".small", type="submit", name="verb", value="redrive")[icon("retry"), "Send again"],
        h.button(".small.quiet", type="submit", name="verb", value="discard")["Let go"],
    ]


def _facts_card(visit: Visit, webhook: Webhook) -> h.Element:
    is_mine = webhook["owner"] == visit.session.person.subject
    until = webhook["previous_secret_until"]
    facts: list[tuple[str, h.Node]] = [
        ("Webhook", h.span(".mono")[webhook["id"]]),
        ("Events", h.code[", ".join(webhook["types"])]),
        ("Only about", webhook["subject"] and h.span(".mono")[webhook["subject"]]),
        ("Owner", "you" if is_mine else h.span(".mono")[webhook["owner"]]),
        ("Last secret", until and f"signs too until {utc_words(until)} UTC"),
        ("Made", ago(webhook["created_at"])),
        ("Changed", ago(webhook["changed_at"])),
    ]
    return card(h.dl(".facts")[((h.dt[name], h.dd[value]) for name, value in facts if value)], title="Details")


async def send_test(visit: Visit) -> Response:
    address = link_to_webhook(visit.path("id"))
    tested = await visit.post(f"/v1{address}/test")
    took = seconds_words(tested["duration_ms"] / 1000)
    if tested["delivered"]:
        visit.say(f"The test was delivered: {tested['status']} after {took}.")
    else:
        visit.say(f"The test was not delivered: {tested['error']}", tone="bad")
    return visit.redirect(address)


async def pause(visit: Visit) -> Response:
    return await _command(visit, "pause", "It is paused. Events wait.")


async def resume(visit: Visit) -> Response:
    return await _command(visit, "resume", "It goes on from where it stood.")


async def _command(visit: Visit, verb: str, done: str) -> Response:
    address = link_to_webhook(visit.path("id"))
    await visit.post(f"/v1{address}/{verb}")
    visit.say(done)
    return visit.redirect(address)


async def rotate(visit: Visit) -> Response:
    made: dict[str, Any] = await visit.post(f"/v1{link_to_webhook(visit.path('id'))}/rotate")
    return await secret_page(visit, made, "It has a new secret.")


async def settle_letter(visit: Visit) -> Response:
    """Sends what was given up on again, or lets it go."""
    address = link_to_webhook(visit.path("id"))
    verb = "discard" if visit.field("verb") == "discard" else "redrive"
    try:
        await visit.post(f"/v1/dead-letters/{visit.number('letter')}/{verb}")
    except AppServiceRefused as error:
        if error.status not in ANSWERED:
            raise
        visit.say(f"{error.title}. {error.detail}", tone="bad")
    else:
        visit.say("It is sent again." if verb == "redrive" else "It is let go.")
    return visit.redirect(address)


async def edit(visit: Visit) -> Response:
    webhook = await _find(visit)
    draft = WebhookDraft(webhook["url"], ", ".join(webhook["types"]), webhook["subject"] or "")
    return await form_page(visit, draft, webhook)


async def change(visit: Visit) -> Response:
    webhook, draft = await _find(visit), WebhookDraft.read(visit)
    address = link_to_webhook(webhook["id"])
    try:
        await visit.patch(f"/v1{address}", draft.body())
    except AppServiceRefused as error:
        if error.status not in ANSWERED:
            raise
        return await form_page(visit, draft.refused(error), webhook, status=error.status)
    visit.say("The webhook is changed.")
    return visit.redirect(address)


async def ask_to_delete(visit: Visit) -> Response:
    webhook = await _find(visit)
    address = link_to_webhook(webhook["id"])
    return await visit.page(
        "Delete a webhook",
        heading("Delete this webhook?", above=crumbs(webhook)),
        card(
            h.form(".start", method="post", action=f"{address}/delete")[
                csrf_field(visit.csrf),
                h.p[
                    "Nothing more is sent to ", h.code[webhook["url"]], ". What was sent and given up on is forgotten."
                ],
                h.div(".form-foot")[
                    h.button(".danger", type="submit")[icon("cross"), "Delete it"],
                    h.a(".button", href=address)["Keep it"],
                ],
            ],
            style="narrow",
        ),
    )


async def delete(visit: Visit) -> Response:
    await visit.delete(f"/v1{link_to_webhook(visit.path('id'))}")
    visit.say("The webhook is deleted.")
    return visit.redirect("/webhooks")
