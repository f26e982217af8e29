"""Wrong codes in a row for one person, wherever they come from (SP 800-63B-4, section 3.2.2).

Whoever sends one knows the password, so this lets no stranger lock anybody out. A second step that succeeds, a factor
that is removed or a password that an administrator sets starts over; one that was chosen by a link in a mail does not:
whoever reads the mails has shown nothing of the second factor.
"""

from sqlalchemy import select, update

from auth_svc.tables import users
from lib_events.database import Connection

WARNED_AT = 10
MAX_IN_A_ROW = 100


def count(connection: Connection, user_id: str) -> int:
    """Count one more wrong code; return how many there are in a row now."""
    more = update(users).where(users.c.id == user_id).values(wrong_codes=users.c.wrong_codes + 1)
    wrong: int = connection.execute(more.returning(users.c.wrong_codes)).scalar_one()
    return wrong


def are_too_many(connection: Connection, user_id: str) -> bool:
    """Whether codes are not looked at any more."""
    return (connection.scalar(select(users.c.wrong_codes).where(users.c.id == user_id)) or 0) >= MAX_IN_A_ROW


def forget(connection: Connection, user_id: str) -> None:
    """Start over."""
    some = (users.c.id == user_id) & (users.c.wrong_codes > 0)
    connection.execute(update(users).where(some).values(wrong_codes=0))
