"""All webhooks one may see: where events are sent, and which of them fail; and the form of a new one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, csrf_field, empty, pill, query
from gui_proj.icons import icon
from gui_proj.moments import ago
from gui_proj.page import heading
from gui_proj.refusals import Refusal, refusal_notice
from gui_proj.resources import Listing, Webhook
from gui_proj.visit import Visit

PAGE_SIZE: Final = 50
ANSWERED: Final = frozenset({400, 403, 404, 409, 422})
SEPARATORS: Final = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class WebhookDraft:
    """The form of a webhook as it stands."""

    url: str = ""
    types: str = ""
    subject: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    refusal: Refusal = field(default_factory=Refusal)

    @classmethod
    def read(cls, visit: Visit) -> "WebhookDraft":
        """What a person has filled in."""
        return cls(visit.field("url"), visit.field("types"), visit.field("subject"))

    def body(self) -> dict[str, Any]:
        types = [name for name in SEPARATORS.split(self.types) if name]
        return {"url": self.url, "types": types, "subject": self.subject or None}

    def refused(self, error: AppServiceRefused) -> "WebhookDraft":
        """The same with the AppService's errors at their controls."""
        errors = {pointer.split("/")[1]: words for pointer, words in error.field_errors.items() if "/" in pointer}
        return WebhookDraft(self.url, self.types, self.subject, errors, Refusal.of(error, at_fields=bool(errors)))


async def show(visit: Visit) -> Response:
    listing: Listing[Webhook] = await visit.get("/v1/webhooks", cursor=visit.query("cursor"), limit=PAGE_SIZE)
    return await visit.page(
        "Webhooks",
        heading(
            "Webhooks",
            above=h.a(href="/events")["Events"],
            below=h.p(".muted")["Events that are sent to a URL, signed."],
            beside=h.a(".button.primary", href="/webhooks/+new")[icon("plus"), "New webhook"],
        ),
        h.div("#webhooks", data_live="webhooks")[card(_table(listing["items"]) if listing["items"] else _nothing())],
        listing["next_cursor"]
        and h.nav(".pages", aria_label="Pages")[
            h.a(".button.small", href=query("/webhooks", cursor=listing["next_cursor"]))["Older"]
        ],
    )


def link_to_webhook(webhook_id: str, *more: str) -> str:
    """The address of a webhook, or of something below it."""
    return "/".join(["/webhooks", quote(webhook_id, safe=""), *more])


def crumbs(webhook: Webhook | None = None) -> h.Node:
    """The way back: from below a webhook, or to all of them."""
    above = h.a(href="/webhooks")["Webhooks"]
    if webhook is None:
        return above
    return [above, " / ", h.a(href=link_to_webhook(webhook["id"]))[webhook["url"]]]


def _nothing() -> h.Element:
    return empty("publish", "No webhooks", h.a(href="/webhooks/+new")["Have events sent to a URL"], ".")


def _table(webhooks: Sequence[Webhook]) -> h.Element:
    return h.div(".scroll")[
        h.table(".schedules")[
            h.caption(".hidden")["Webhooks"],
            h.thead[h.tr[(h.th(scope="col")[name] for name in ("URL", "State", "Events", "Made"))]],
            h.tbody[(_row(each) for each in webhooks)],
        ]
    ]


def _row(webhook: Webhook) -> h.Element:
    about = webhook["subject"] and f", about {webhook['subject']}"
    return h.tr(id=f"webhook-{webhook['id']}")[
        h.td[
            h.a(".row-link.cut", href=link_to_webhook(webhook["id"]), title=webhook["url"])[webhook["url"]],
            h.div(".sub.mono")[webhook["id"]],
        ],
        h.td[pill(webhook["state"]), webhook["reason"] and h.div(".sub", title=webhook["reason"])[webhook["reason"]]],
        h.td[h.div(".sub.mono", title=", ".join(webhook["types"]))[", ".join(webhook["types"]), about]],
        h.td(".nowrap")[ago(webhook["created_at"])],
    ]


async def new(visit: Visit) -> Response:
    return await form_page(visit, WebhookDraft(types=visit.query("types")))


async def create(visit: Visit) -> Response:
    draft = WebhookDraft.read(visit)
    try:
        made = await visit.post("/v1/webhooks", draft.body())
    except AppServiceRefused as error:
        if error.status not in ANSWERED:
            raise
        return await form_page(visit, draft.refused(error), status=error.status)
    return await secret_page(visit, made, "The webhook is made.")


async def secret_page(visit: Visit, webhook: Mapping[str, Any], done: str) -> Response:
    """A secret, the only time that anybody sees it: in the answer itself, so that it is kept nowhere."""
    return await visit.page(
        "Its secret",
        heading(done, above=h.a(href="/webhooks")["Webhooks"]),
        card(
            h.div(".pad.stack")[
                h.p["This secret signs what is sent. It is shown now and never again: give it to the receiver."],
                h.div(".field")[
                    h.label(for_="secret")["Secret"],
                    h.input("#secret.code", value=webhook["secret"], readonly=True, autocomplete="off"),
                ],
                h.p[h.a(".button.primary", href=link_to_webhook(webhook["id"]))["I have it"]],
            ],
            style="narrow",
        ),
    )


async def form_page(
    visit: Visit, draft: WebhookDraft, webhook: Webhook | None = None, *, status: int = 200
) -> Response:
    """The form of a new webhook, or of one there is."""
    title, label = ("Change a webhook", "Keep the change") if webhook else ("New webhook", "Make the webhook")
    return await visit.page(
        title,
        heading(title, above=crumbs(webhook)),
        card(
            h.form(".start", method="post", action=visit.request.url.path)[
                csrf_field(visit.csrf),
                refusal_notice(visit, draft.refusal, has_errors=bool(draft.errors)),
                _row_of(draft, "url", "URL", "https, at a public address.", value=draft.url, required=True),
                _row_of(
                    draft,
                    "types",
                    "Events",
                    "Types, or patterns such as order.*; several with commas. Only what you may read is sent.",
                    value=draft.types,
                    required=True,
                ),
                _row_of(draft, "subject", "Only about", "A subject, such as a run's id.", value=draft.subject),
                h.div(".form-foot")[h.button(".primary", type="submit")[icon("check"), label]],
            ],
            style="narrow",
        ),
        status=status,
    )


def _row_of(draft: WebhookDraft, name: str, label: str, hint: str, **attributes: h.Attribute) -> h.Element:
    error = draft.errors.get(name)
    return h.div(class_=["field", {"wrong": bool(error)}])[
        h.label(for_=name)[label, not attributes.get("required") and h.span(".optional")["optional"]],
        h.p(".hint", id=f"{name}-hint")[hint],
        h.input(
            attributes,
            id=name,
            name=name,
            autocomplete="off",
            spellcheck="false",
            aria_invalid="true" if error else None,
            aria_describedby=f"{name}-hint {name}-error" if error else f"{name}-hint",
        ),
        error and h.p(".error", id=f"{name}-error")[error],
    ]
