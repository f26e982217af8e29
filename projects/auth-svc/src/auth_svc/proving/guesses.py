"""Wrong codes, and wrong passwords, in a row for one person, wherever they come from (SP 800-63B-4, section 3.2.2).

Whoever sends a wrong code knows the password, so counting those lets no stranger lock anybody out. A second step that
succeeds, a factor that is removed or a password that an administrator sets starts over; one that was chosen by a link
in a mail does not: whoever reads the mails has shown nothing of the second factor.

A wrong password anybody can send. Those from browsers that the person has signed in with do not count here, and a stop
does not concern them (`known_browsers`). The right password, where it is taken, or a new one starts over.
"""

from sqlalchemy import Column, select, update

from auth_svc.tables import users
from lib_events.database import Connection

type Kind = Column[int]

CODES: Kind = users.c.wrong_codes
PASSWORDS: Kind = users.c.wrong_passwords
WARNED_AT = 10
MAX_IN_A_ROW = 100


def count(connection: Connection, user_id: str, kind: Kind = CODES) -> int:
    """Count one more wrong try up to the stop; return how many there are in a row now, 0 where nobody has the id."""
    more = update(users).where(users.c.id == user_id, kind < MAX_IN_A_ROW).values({kind: kind + 1})
    return connection.execute(more.returning(kind)).scalar_one_or_none() or 0


def are_too_many(connection: Connection, user_id: str) -> bool:
    """Whether codes are not looked at any more."""
    return (connection.scalar(select(CODES).where(users.c.id == user_id)) or 0) >= MAX_IN_A_ROW


def forget(connection: Connection, user_id: str, kind: Kind = CODES) -> None:
    """Start over."""
    connection.execute(update(users).where(users.c.id == user_id, kind > 0).values({kind: 0}))
