"""Where a person is signed in, in words they recognise; and the mail about a device they never used before."""

from sqlalchemy import bindparam, select, update

from auth_svc.audit import Actor
from auth_svc.mail import texts
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import LONGEST_USER_AGENT
from auth_svc.tables import sessions
from lib_events.database import Connection
from lib_events.prepared import Prepared

MICROS = 1_000_000
SAME_BROWSER = Prepared(
    select(sessions.c.id)
    .where(sessions.c.user_id == bindparam("user"), sessions.c.user_agent == bindparam("agent"))
    .limit(1)
)
SEEN_EVERY_SECONDS = 300
FRESH_ACCOUNT_SECONDS = 3600
# In this order: they name one another.
BROWSERS = {"Firefox": "Firefox", "Edg": "Edge", "OPR": "Opera", "Chrome": "Chrome", "Safari": "Safari", "curl": "curl"}
SYSTEMS = {
    "Windows": "Windows",
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}


def describe(user_agent: str | None) -> str:
    """Browser and system, as far as the browser tells."""
    agent = user_agent or ""
    browser = next((name for mark, name in BROWSERS.items() if mark in agent), "An unknown browser")
    system = next((name for mark, name in SYSTEMS.items() if mark in agent), None)
    return f"{browser} on {system}" if system else browser


def tell_if_new(connection: Connection, account: Account, user_agent: str, actor: Actor) -> None:
    """Write to a person who signs in from a device unlike those of late; with a fresh account the first is no news."""
    if connection.row(SAME_BROWSER, user=account.id, agent=user_agent[:LONGEST_USER_AGENT]) is not None:
        return  # nearly always: looking at all of them is for the rest
    query = select(sessions.c.user_agent).where(sessions.c.user_id == account.id).distinct()
    known = {describe(seen) for seen in connection.scalars(query)}
    device = describe(user_agent)
    is_first = not known and actor.at - account.created_at < FRESH_ACCOUNT_SECONDS * MICROS
    if device not in known and not is_first:
        letter = texts.new_device(account.username, device, actor.address or "unknown")
        accounts.write_to(connection, account, letter, actor.at)


def saw(connection: Connection, session_id: str, now: int) -> None:
    """Remember that a session is in use."""
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(last_seen_at=now))
