"""Clients that nobody here made and nobody uses go again: strangers may register, or name, any number of them.

One that is named by its document comes again with whoever is sent here by it.
"""

from sqlalchemy import exists, func, select

from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.protocol.families import MICROS
from auth_svc.tables import clients as table
from auth_svc.tables import consents, families
from lib_events.database import Connection

BATCH = 20  # each takes a dozen statements, and others wait for the transaction
DAY_MICROS = 24 * 3600 * MICROS


def prune(connection: Connection, days: int, actor: Actor) -> int:
    """Remove up to `BATCH` clients without a grant for `days`; returns how many went.

    What an administrator made or disabled stays, and so does what somebody consented to or holds a token of.
    """
    last_seen = func.coalesce(table.c.granted_at, table.c.fetched_at, table.c.created_at)
    unused = (
        table.c.origin.in_(("registered", "document"))
        & table.c.disabled_at.is_(None)
        & (last_seen < actor.at - days * DAY_MICROS)
        & ~exists().where(consents.c.client_id == table.c.id)
        & ~exists().where(families.c.client_id == table.c.id)
    )
    found = connection.scalars(select(table.c.id).where(unused).order_by(table.c.created_at).limit(BATCH))
    gone = 0
    for client_id in list(found):
        # Whoever is just being used holds its row: look again once it is ours, or leave it for the next time.
        still = select(table.c.id).where((table.c.id == client_id) & unused).with_for_update(skip_locked=True)
        if connection.execute(still).one_or_none() is not None:
            clients.remove(connection, client_id, actor)
            gone += 1
    return gone
