"""Choreography: nobody calls this; it reacts to a user's registration and tells of what it did by an event."""

from dataclasses import dataclass

from app_svc.tables import outgoing_messages
from lib_auth.events import UserRegistered, UserRegisteredData
from lib_events.clock import SystemClock
from lib_events.database import Connection, insert_into
from lib_workflows import Context, EventType, workflow


@dataclass(frozen=True, slots=True)
class Welcome:
    """A welcome message that was written."""

    message: str
    user: str
    username: str
    subject: str


WelcomeMessageSent = EventType("welcome.message.sent", Welcome)

SUBJECT = "Welcome, {username}"
BODY = """Hello {username},

your account is ready. Start a workflow in the catalogue, follow it live, and ask for the role you need.
"""


def write_welcome(connection: Connection, user: str, username: str, email: str | None) -> Welcome:
    """Write the message; a user who was welcomed before gets no second one."""
    identifier = f"welcome-{user}"
    welcome = Welcome(identifier, user, username, SUBJECT.format(username=username))
    row = {
        "id": identifier,
        "recipient": user,
        "email": email,
        "subject": welcome.subject,
        "body": BODY.format(username=username),
        "written_at": SystemClock().micros(),
    }
    # Two runs may welcome the same user at once: the database decides which of them writes.
    connection.execute(insert_into(connection, outgoing_messages).values(row).on_conflict_do_nothing())
    return welcome


@workflow(name="welcome-user", version=1, type="choreography", on=UserRegistered)
async def welcome_user(ctx: Context, user: UserRegisteredData) -> Welcome:
    """Write a welcome message to whoever registers; starts by itself on `evs.user.registered`."""
    welcome = await ctx.transaction(write_welcome, user.user, user.username, user.email)
    await ctx.publish(WelcomeMessageSent, welcome, subject=welcome.user)
    return welcome
