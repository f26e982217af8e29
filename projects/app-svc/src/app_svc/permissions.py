"""Who may do what: for every operation the scope it takes of the client and the role it takes of the person.

A route without an entry here cannot be made, so a forgotten entry is an error at the start, never an open door.
"""

from dataclasses import dataclass

from lib_auth.principal import ADMIN, MEMBER, OPERATOR, Principal


@dataclass(frozen=True, slots=True)
class Permission:
    """A scope and a role; both must be held."""

    scope: str
    role: str

    def held_by(self, principal: Principal) -> bool:
        """Whether `principal` has both."""
        return principal.has_scope(self.scope) and principal.has_role(self.role)


@dataclass(frozen=True, slots=True)
class Rule:
    """What an operation takes: `own` for one's own things, `all` for everybody's (None: there is no difference)."""

    own: Permission
    all: Permission | None = None

    def lets_in(self, principal: Principal) -> bool:
        """Whether `principal` may do it to some things at least."""
        return self.own.held_by(principal) or (self.all is not None and self.all.held_by(principal))


READ = Permission("workflows:read", MEMBER)
RUN = Permission("workflows:run", MEMBER)
MANAGE = Permission("workflows:manage", OPERATOR)
READ_EVENTS = Permission("events:read", MEMBER)
READ_ALL_EVENTS = Permission("events:read", OPERATOR)
READ_ACCOUNT_EVENTS = Permission("events:read", ADMIN)
PUBLISH_EVENTS = Permission("events:publish", MEMBER)
DECIDE = Permission("approvals:decide", MEMBER)  # and the approval must name the person or a role of theirs

# These tell of people: who signed in when, and whose token was revoked.
ACCOUNT_EVENTS = ("evs.user.*", "evs.session.*", "evs.token.*", "evs.grant.*", "evs.client.*")

RULES: dict[tuple[str, str], Rule] = {
    ("GET", "/v1/workflows"): Rule(READ),
    ("GET", "/v1/workflows/{name}"): Rule(READ),
    ("GET", "/v1/workflows/{name}/size"): Rule(MANAGE),  # it counts everybody's runs
    ("POST", "/v1/runs"): Rule(RUN),
    ("POST", "/v1/runs:batch"): Rule(RUN),
    ("POST", "/v1/runs:cancel"): Rule(MANAGE),
    ("POST", "/v1/runs:retry"): Rule(MANAGE),
    ("GET", "/v1/runs"): Rule(READ, all=MANAGE),
    ("GET", "/v1/runs/{run_id}"): Rule(READ, all=MANAGE),
    ("GET", "/v1/runs/{run_id}/history"): Rule(READ, all=MANAGE),
    ("GET", "/v1/runs/{run_id}/export"): Rule(READ, all=MANAGE),
    ("GET", "/v1/runs/{run_id}/comparison"): Rule(READ, all=MANAGE),  # and the other run must be visible, too
    ("GET", "/v1/runs/{run_id}/logs"): Rule(READ, all=MANAGE),
    ("GET", "/v1/runs/{run_id}/events"): Rule(READ, all=MANAGE),
    ("GET", "/v1/runs/{run_id}/views/{name}"): Rule(READ, all=MANAGE),
    ("POST", "/v1/runs/{run_id}/cancel"): Rule(RUN, all=MANAGE),
    ("POST", "/v1/runs/{run_id}/retry"): Rule(RUN, all=MANAGE),
    ("POST", "/v1/runs/{run_id}/fork"): Rule(RUN, all=MANAGE),
    ("POST", "/v1/runs/{run_id}/signals/{name}"): Rule(RUN, all=MANAGE),
    ("POST", "/v1/runs/{run_id}/updates/{name}"): Rule(RUN, all=MANAGE),
    ("GET", "/v1/updates/{update_id}"): Rule(READ, all=MANAGE),
    ("GET", "/v1/approvals"): Rule(READ, all=MANAGE),
    ("GET", "/v1/approvals/{approval_id}"): Rule(READ, all=MANAGE),
    ("POST", "/v1/approvals/{approval_id}/decision"): Rule(DECIDE),
    ("GET", "/v1/schedules"): Rule(MANAGE),
    ("POST", "/v1/schedules"): Rule(MANAGE),
    ("POST", "/v1/schedules:preview"): Rule(MANAGE),
    ("GET", "/v1/schedules/{name}"): Rule(MANAGE),
    ("PATCH", "/v1/schedules/{name}"): Rule(MANAGE),
    ("DELETE", "/v1/schedules/{name}"): Rule(MANAGE),
    ("POST", "/v1/schedules/{name}/pause"): Rule(MANAGE),
    ("POST", "/v1/schedules/{name}/resume"): Rule(MANAGE),
    ("POST", "/v1/schedules/{name}/trigger"): Rule(MANAGE),
    ("POST", "/v1/schedules/{name}/backfill"): Rule(MANAGE),
    ("GET", "/v1/queues"): Rule(MANAGE),
    ("GET", "/v1/queues/{name}"): Rule(MANAGE),
    ("PUT", "/v1/queues/{name}"): Rule(MANAGE),
    ("POST", "/v1/queues/{name}/pause"): Rule(MANAGE),
    ("POST", "/v1/queues/{name}/resume"): Rule(MANAGE),
    ("GET", "/v1/events"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("POST", "/v1/events"): Rule(PUBLISH_EVENTS),
    ("GET", "/v1/dead-letters"): Rule(MANAGE),
    ("GET", "/v1/dead-letters/{letter_id}"): Rule(MANAGE),
    ("POST", "/v1/dead-letters/{letter_id}/redrive"): Rule(MANAGE),
    ("POST", "/v1/dead-letters/{letter_id}/discard"): Rule(MANAGE),
    # A webhook is a way of reading, so it takes what reading takes, however it is asked for.
    ("GET", "/v1/webhooks"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("POST", "/v1/webhooks"): Rule(READ_EVENTS),
    ("GET", "/v1/webhooks/{webhook_id}"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("PATCH", "/v1/webhooks/{webhook_id}"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("DELETE", "/v1/webhooks/{webhook_id}"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("POST", "/v1/webhooks/{webhook_id}/rotate"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("POST", "/v1/webhooks/{webhook_id}/pause"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("POST", "/v1/webhooks/{webhook_id}/resume"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("POST", "/v1/webhooks/{webhook_id}/test"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): Rule(READ_EVENTS, all=READ_ALL_EVENTS),
    ("GET", "/v1/webhooks/in"): Rule(MANAGE),
    ("GET", "/v1/webhooks/in/{name}"): Rule(MANAGE),
    ("PUT", "/v1/webhooks/in/{name}"): Rule(MANAGE),
    ("DELETE", "/v1/webhooks/in/{name}"): Rule(MANAGE),
}

# Answered to anybody: they tell where to sign in, what there is to call, and whether this process works.
PUBLIC = frozenset(
    (
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/asyncapi.json",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
    )
)

# Let in by a signature over the body instead of a token.
SIGNED = frozenset((("POST", "/v1/webhooks/in/{name}"),))

# Let in by a token like the others; which rule counts follows from the tool that is called.
BY_TOOL = frozenset((("POST", "/mcp"),))
