"""Chains the audit: gives committed lines their place and hash, proves the chain, and prunes it without breaking it.

Lines are written unchained in the transaction of what they tell of, so that nobody waits for anybody else's line. One
loop, in the process that leads, chains what is committed, in order of id; a line whose transaction took longer comes
later in the chain than its id says, never out of it. Until it is chained, a moment later, a line is not protected yet.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from auth_svc.audit import AUDIT_TOPIC, Actor, content, record
from auth_svc.tables import audit, audit_chain
from lib_auth.audit_chain import PRUNED, START, ChainBroken, ChainVerifier, Head, link
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop
from lib_events.prepared import Prepared

logger = logging.getLogger(__name__)

BATCH = 500
PAGE = 500
POLL_SECONDS = 5.0
GATHER_SECONDS = 0.05  # lines of a busy moment are chained together
LOCKED_STATE = Prepared(select(audit_chain).with_for_update())
UNCHAINED = Prepared(select(audit).where(audit.c.position.is_(None)).order_by(audit.c.id).limit(BATCH))
CHAIN = Prepared(
    update(audit).where(audit.c.id == bindparam("line")).values(position=bindparam("place"), hash=bindparam("digest"))
)
MOVE_HEAD = Prepared(update(audit_chain).values(position=bindparam("place"), hash=bindparam("digest")))


@dataclass(frozen=True, slots=True)
class ChainState:
    """Where the chain begins and ends, and how many lines wait to be chained."""

    head: Head
    anchor: Head  # the last line that was pruned, or the start
    anchored_at: int | None
    waiting: int


class AuditChain(Loop):
    """Chains while this process leads; woken by every commit that wrote a line."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="audit chain")
        self._database = database

    async def run(self) -> None:
        """Wait to lead, then chain until the lead is lost."""
        async with self._database.leading("audit chain"):
            unsubscribe = self._database.on_notify(AUDIT_TOPIC, self.wake)
            try:
                while True:
                    while await self._database.transact(chain_next) == BATCH:
                        pass
                    await self.pause(POLL_SECONDS)
                    await asyncio.sleep(GATHER_SECONDS)  # not for a result: for company
            finally:
                unsubscribe()


def chain_next(connection: Connection) -> int:
    """Chain a batch of committed lines and return how many they were."""
    # The row's lock, not the lead, is what keeps two processes from chaining at once.
    state = connection.row(LOCKED_STATE)
    rows = connection.rows(UNCHAINED)
    if not rows:
        return 0
    position, previous = state.position, state.hash
    for row in rows:
        position += 1
        previous = link(previous, content(row, position))
        connection.change(CHAIN, line=row.id, place=position, digest=previous)
    connection.change(MOVE_HEAD, place=position, digest=previous)
    return len(rows)


def state(connection: Connection) -> ChainState:
    """Return where the chain stands; raises `ChainBroken`."""
    row = connection.execute(select(audit_chain)).one_or_none()
    if row is None:
        raise ChainBroken(START.position, "the row that says where the chain begins and ends is gone")
    waiting = select(func.count()).select_from(audit).where(audit.c.position.is_(None))
    anchor = Head(row.anchor_position, row.anchor_hash)
    return ChainState(Head(row.position, row.hash), anchor, row.anchored_at, int(connection.scalar(waiting)))


def lines(connection: Connection, after: int, limit: int) -> Sequence[Mapping[str, Any]]:
    """Return chained lines in the chain's order, as everybody who verifies them sees them."""
    query = select(audit).where(audit.c.position > after).order_by(audit.c.position).limit(limit)
    return [content(row, row.position) | {"hash": row.hash} for row in connection.execute(query)]


def place_before(connection: Connection, after: int) -> Head:
    """Return the head that lines after `after` continue: that line's, or the anchor when it was pruned."""
    anchor = state(connection).anchor
    if after <= anchor.position:
        return anchor
    found = connection.scalar(select(audit.c.hash).where(audit.c.position == after))
    return Head(after, found) if found is not None else anchor


def verify(connection: Connection, known: Head | None) -> ChainVerifier:
    """Follow the whole chain in one snapshot; raises `ChainBroken`."""
    told = state(connection)
    verifier = ChainVerifier(told.anchor, known=known)
    while page := lines(connection, verifier.head.position, PAGE):
        for line in page:
            verifier.add(line)
    verifier.finish(told.head, waiting=told.waiting)
    return verifier


def prune(connection: Connection, before: int, actor: Actor, limit: int) -> int:
    """Delete the oldest lines up to the moment `before`; the last one's place stays as the chain's anchor."""
    connection.execute(select(audit_chain).with_for_update()).one()
    oldest = select(audit.c.position, audit.c.hash, audit.c.at).where(audit.c.position.is_not(None))
    rows = connection.execute(oldest.order_by(audit.c.position).limit(limit)).all()
    kept = next((index for index, row in enumerate(rows) if row.at >= before), len(rows))
    if not kept:
        return 0
    last = rows[kept - 1]
    anchor = {"anchor_position": last.position, "anchor_hash": last.hash, "anchored_at": actor.at}
    connection.execute(update(audit_chain).values(anchor))
    connection.execute(delete(audit).where(audit.c.position <= last.position))
    record(connection, actor, PRUNED, lines=kept, last=str(Head(last.position, last.hash)))
    return kept
