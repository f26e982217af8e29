"""Every command of `evs` as a list: its name, where its code is, one line of help. Nothing heavy is imported here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One noun or command; `target` is imported when it is used."""

    name: str
    target: str
    help: str
    group: str


PRODUCT = "The product"
WORK = "Work"
ACCESS = "Access"

COMMANDS = (
    Entry("demo", "cli_proj.demo.command:demo", "Show the whole product at work, with data of its own", PRODUCT),
    Entry("up", "cli_proj.commands.up:up", "Start everything on this machine", PRODUCT),
    Entry("down", "cli_proj.commands.down:down", "Stop what `evs up` started", PRODUCT),
    Entry("status", "cli_proj.commands.status:status", "Say which services run, and how they are", PRODUCT),
    Entry("doctor", "cli_proj.commands.doctor:doctor", "Look for what is wrong on this machine", PRODUCT),
    Entry("open", "cli_proj.commands.open:open_", "Open the GUI in the browser", PRODUCT),
    Entry("new", "cli_proj.commands.new:app", "Make a service or a workflow of your own", WORK),
    Entry("workflow", "cli_proj.commands.workflow:app", "The workflows that can be started", WORK),
    Entry("run", "cli_proj.commands.run:app", "Start runs, follow them, change their course", WORK),
    Entry("approval", "cli_proj.commands.approval:app", "Decide what waits for a person", WORK),
    Entry("schedule", "cli_proj.commands.schedule:app", "Start runs by the clock", WORK),
    Entry("queue", "cli_proj.commands.queue:app", "What waits, and how much may be under way", WORK),
    Entry("event", "cli_proj.commands.event:app", "Read events, and publish your own", WORK),
    Entry("dead-letter", "cli_proj.commands.dead_letter:app", "Events that a subscription gave up on", WORK),
    Entry("webhook", "cli_proj.commands.webhook:app", "Have events sent to a URL", WORK),
    Entry("api", "cli_proj.commands.api:api", "Send one request to the REST API, signed in", WORK),
    Entry("auth", "cli_proj.commands.auth:app", "Sign in and out, ask for a role", ACCESS),
    Entry("context", "cli_proj.commands.context:app", "Which product the commands talk to", ACCESS),
    Entry("admin", "cli_proj.commands.admin:app", "Users, groups, roles, resources, the audit", ACCESS),
)

EXAMPLES = (
    ("evs up", "start the product"),
    ("evs run start order --input @order.json --watch", "start a run and follow it"),
    ("evs run list --status failed -o json", "for a script"),
)
