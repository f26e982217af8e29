"""Making a schedule and changing one: when, what and how, with the next times before anything is kept."""

from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, csrf_field, empty
from gui_proj.controls import Unreadable
from gui_proj.icons import icon
from gui_proj.input_draft import InputDraft, input_view, read_input, refused_input
from gui_proj.page import heading
from gui_proj.refusals import Refusal, refusal_notice
from gui_proj.resources import Listing, Schedule, Workflow
from gui_proj.schedule_controls import ScheduleControls
from gui_proj.schedule_draft import ScheduleDraft
from gui_proj.schedule_words import times_table
from gui_proj.schema import Field, read_schema
from gui_proj.screens.schedules import crumbs, link_to_schedule
from gui_proj.visit import Visit

ANSWERED: Final = frozenset({400, 403, 404, 409, 413, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The form as it stands; `schedule` is the one that is changed, None where one is made."""

    workflow: Workflow
    schedule: Schedule | None = None
    draft: ScheduleDraft = field(default_factory=ScheduleDraft)
    input: InputDraft = field(default_factory=InputDraft)
    refusal: Refusal = field(default_factory=Refusal)

    @property
    def asked(self) -> Field:
        return read_schema(self.workflow["input_schema"])

    @property
    def title(self) -> str:
        return f"Change {self.schedule['name']}" if self.schedule else f"New schedule of {self.workflow['name']}"

    @property
    def has_errors(self) -> bool:
        return bool(self.draft.errors or self.input.errors)

    def body(self) -> dict[str, Any]:
        """What is sent; raises `Unreadable`."""
        texts, body = self.draft.texts, self.draft.timing() | self.draft.policies() | {"input": self.input.sent}
        if self.workflow["acts_for_starter"]:
            body["acts_for_me"] = texts["acts_for_me"] == "true"
        if self.schedule is None:
            body |= {"name": texts["name"], "workflow": self.workflow["name"]}
            body |= {"paused": texts["paused"] == "true", "note": texts["note"]}
        return body

    def refused(self, error: AppServiceRefused) -> "Form":
        """The same with the AppService's errors at their controls; what has none stands above the form."""
        pointers = {str(each.get("pointer") or ""): str(each.get("detail")) for each in error.body.get("errors") or ()}
        if error.kind == "schedule-exists":
            pointers = {"/name": error.detail}
        inner = {name.removeprefix("/input"): words for name, words in pointers.items() if _is_input(name)}
        given, stray = refused_input(self.asked, self.input, inner)
        draft = self.draft.with_errors({name: words for name, words in pointers.items() if not _is_input(name)})
        stray += [f"{name}: {words}" for name, words in draft.errors.items() if name not in {*draft.texts}]
        refusal = Refusal.of(error, stray=stray, at_fields=bool(draft.errors or given.errors))
        return replace(self, draft=draft, input=given, refusal=refusal)


def _is_input(pointer: str) -> bool:
    return pointer == "/input" or pointer.startswith("/input/")


async def new(visit: Visit) -> Response:
    """The form of a new schedule; without a workflow in the address, the choice of one."""
    name = visit.query("workflow")
    if not name:
        return await _choose(visit)
    return await _page(visit, Form(workflow=await _workflow(visit, name)))


async def create(visit: Visit) -> Response:
    form, only_redraw = await _read(visit, Form(workflow=await _workflow(visit, visit.query("workflow"))))
    return await _keep(visit, form, only_redraw=only_redraw)


async def edit(visit: Visit) -> Response:
    return await _page(visit, await _form_of(visit))


async def change(visit: Visit) -> Response:
    form, only_redraw = await _read(visit, await _form_of(visit))
    return await _keep(visit, form, only_redraw=only_redraw)


async def preview(visit: Visit) -> Response:
    """Only the next times of what is typed: what the page's script asks for."""
    return await visit.page("Preview", await _preview(visit, ScheduleDraft.read(visit.field)))


async def _workflow(visit: Visit, name: str) -> Workflow:
    found: Workflow = await visit.get(f"/v1/workflows/{quote(name, safe='')}")
    return found


async def _form_of(visit: Visit) -> Form:
    schedule: Schedule = await visit.get(f"/v1{link_to_schedule(visit.path('name'))}")
    mine = schedule["acts_until"] is not None and schedule["principal"] == visit.session.person.subject
    workflow = await _workflow(visit, schedule["workflow"])
    draft = ScheduleDraft.of(schedule, acts_for_me=mine)
    return Form(workflow=workflow, schedule=schedule, draft=draft, input=InputDraft(schedule["input"]))


async def _read(visit: Visit, form: Form) -> tuple[Form, bool]:
    """The submitted form, and whether it is only to be drawn again."""
    given, only_redraw = await read_input(visit, form.asked)
    draft = ScheduleDraft.read(visit.field)
    return replace(form, draft=draft, input=given), only_redraw or "_preview" in visit.form


async def _keep(visit: Visit, form: Form, *, only_redraw: bool) -> Response:
    """Makes or changes the schedule, or shows the form again with what is wrong."""
    if only_redraw:
        return await _page(visit, await _checked(visit, form) if "_preview" in visit.form else form)
    if form.has_errors:
        return await _page(visit, form, status=422)
    try:
        kept = await _send(visit, form)
    except Unreadable as error:
        wrong = replace(form.draft, errors={error.control: str(error)})
        return await _page(visit, replace(form, draft=wrong), status=422)
    except AppServiceRefused as error:
        if error.status not in ANSWERED or (error.status == 403 and not form.workflow["acts_for_starter"]):
            raise
        return await _page(visit, form.refused(error), status=error.status)
    visit.say("The schedule is changed." if form.schedule else "The schedule is made.")
    return visit.redirect(link_to_schedule(kept["name"]))


async def _send(visit: Visit, form: Form) -> Schedule:
    body = form.body()
    if form.schedule is None:
        made: Schedule = await visit.post("/v1/schedules", body)
        return made
    changed: Schedule = await visit.patch(f"/v1{link_to_schedule(form.schedule['name'])}", body)
    return changed


async def _checked(visit: Visit, form: Form) -> Form:
    """The form with what is wrong with its timing, which somebody wants to see before they send it."""
    try:
        await _next_times(visit, form.draft)
    except Unreadable as error:
        return replace(form, draft=replace(form.draft, errors={error.control: str(error)}))
    except AppServiceRefused as error:
        if error.status != 422:
            raise
        return form.refused(error)
    return form


async def _next_times(visit: Visit, draft: ScheduleDraft) -> list[str]:
    answer = await visit.post("/v1/schedules:preview", draft.timing())
    times: list[str] = answer["next_times"]
    return times


async def _preview(visit: Visit, draft: ScheduleDraft) -> h.Element:
    """When it would be due; read out as it changes."""
    try:
        times = await _next_times(visit, draft)
        timezone = (draft.texts["timezone"] or None) if draft.texts["when"] == "cron" else None
        found: h.Node = times_table(times, timezone, caption="Next times") if times else "None of its times is to come."
    except Unreadable as error:
        found = h.span(".muted")[f"{error.control} {error}"]
    except AppServiceRefused as error:
        if error.status != 422:
            raise
        found = h.span(".muted")[" · ".join(error.field_errors.values()) or error.detail]
    return h.div("#preview.preview", role="status")[found]


async def _choose(visit: Visit) -> Response:
    listing: Listing[Workflow] = await visit.get("/v1/workflows", limit=200)
    names = sorted({each["name"] for each in listing["items"]})
    return await visit.page(
        "New schedule",
        heading("New schedule", above=crumbs()),
        card(
            h.form(".start", method="get", action="/schedules/+new")[
                h.div(".field")[
                    h.label(for_="workflow")["What it starts"],
                    h.select("#workflow", name="workflow", required=True)[
                        (h.option(value=name)[name] for name in names)
                    ],
                ],
                h.div(".form-foot")[h.button(".primary", type="submit")["Go on"]],
            ]
            if names
            else empty("workflows", "No workflows", "There is nothing to start."),
            style="narrow",
        ),
    )


async def _page(visit: Visit, form: Form, *, status: int = 200) -> Response:
    found = await _preview(visit, form.draft)
    above = crumbs(form.schedule)
    return await visit.page(
        form.title, heading(form.title, above=above), card(_form(visit, form, found), style="narrow"), status=status
    )


def _form(visit: Visit, form: Form, found: h.Element) -> h.Element:
    controls, label = ScheduleControls(form.draft), "Keep the change" if form.schedule else "Make the schedule"
    return h.form(".start", method="post", enctype="multipart/form-data", action=_action(visit))[
        csrf_field(visit.csrf),
        # Enter in a field presses the first button of a form: that must be the one that keeps.
        h.button(".hidden", type="submit", tabindex="-1", aria_hidden="true")[label],
        refusal_notice(visit, form.refusal, has_errors=form.has_errors),
        None if form.schedule else controls.name(),
        controls.when(found),
        h.fieldset(".group")[h.legend["Input"], input_view(form.asked, form.input)],
        controls.policies(),
        _acting(form, controls),
        None if form.schedule else controls.beginning(),
        _owner_hint(visit, form.schedule),
        h.div(".form-foot")[h.button(".primary", type="submit")[icon("check"), label]],
    ]


def _action(visit: Visit) -> str:
    url = visit.request.url
    return f"{url.path}?{url.query}" if url.query else url.path


def _acting(form: Form, controls: ScheduleControls) -> h.Node:
    """Only where the workflow does something in somebody's name."""
    delegations = form.workflow["acts_for_starter"]
    if not delegations:
        return None
    where = "; ".join(f"at {each['resource']} ({', '.join(each['scope'])})" for each in delegations)
    return controls.check("acts_for_me", "Its runs act for you, for 90 days", hint=f"{where}; else for nobody.")


def _owner_hint(visit: Visit, schedule: Schedule | None) -> h.Node:
    if schedule is None or schedule["principal"] == visit.session.person.subject:
        return None
    return h.p(".hint")["From then on its runs start in your name."]
