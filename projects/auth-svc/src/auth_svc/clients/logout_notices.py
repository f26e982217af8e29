"""Back-Channel Logout: every client that signed a person in hears that the session is over, and is told until it does.

The plan is made from the event of the session's end, in one transaction with its place; sending is retried per client.
A client that does not answer holds up no other: only some of its notices are under way at once.
"""

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, delete, insert, select, update

from auth_svc import audit, outcome
from auth_svc.audit import Actor
from auth_svc.opaque import new_id
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.issuer import Issuer
from auth_svc.tables import clients, families, logout_deliveries
from lib_auth.events import SessionEnded
from lib_events.clock import Clock, SystemClock
from lib_events.database import Connection, Database, DatabaseError
from lib_events.event import Event
from lib_events.http.checked import CheckedHttp, RequestFailed
from lib_events.http.destinations import DestinationRefused
from lib_events.lifecycle import Loop
from lib_events.subscription import subscribe

logger = logging.getLogger(__name__)

TOPIC: Final = "logout-deliveries"
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
TOKEN_SECONDS = 120  # Back-Channel Logout section 4: preferably at most two minutes in the future
LOOK_SECONDS = 30.0
AT_ONCE = 100
OF_ONE_CLIENT = 5
DATABASE_AWAY_SECONDS = 1.0
FIRST_RETRY_SECONDS = 2.0
LAST_RETRY_SECONDS = 3_600.0
GIVE_UP_SECONDS = 24 * 3_600
ANSWER_LIMIT_BYTES = 16 * 1024
HEADERS = (("content-type", "application/x-www-form-urlencoded"), ("user-agent", "event-based-svcs"))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A logout one client has yet to hear of."""

    id: str
    client_id: str
    url: str | None  # None: the client does not want to hear of logouts any more
    algorithm: str
    session_id: str
    user_id: str
    attempts: int
    created_at: int


@subscribe(SessionEnded, durable="back-channel-logout")
def plan_logouts(connection: Connection, event: Event) -> None:
    """Plan one delivery for each client the session signed the person in to, and that wants to hear of it."""
    ended = event.payload(SessionEnded)
    signed_in = (families.c.started_in == ended.session) & clients.c.logout_uri.is_not(None)
    query = select(clients.c.id).distinct().join(families, families.c.client_id == clients.c.id).where(signed_in)
    now = SystemClock().micros()
    for client_id in connection.execute(query).scalars().all():
        connection.execute(
            insert(logout_deliveries).values(
                id=new_id(),
                client_id=client_id,
                session_id=ended.session,
                user_id=ended.user,
                attempts=0,
                next_at=now,
                created_at=now,
            )
        )
        connection.notify(TOPIC)


class LogoutNotices(Loop):
    """Sends what is due, where this process leads in it."""

    def __init__(self, database: Database, issuer: Issuer, http: CheckedHttp, clock: Clock) -> None:
        super().__init__(name="logout notices")
        self._database = database
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._under_way: dict[str, str] = {}  # clients, by the delivery that is being made to each

    async def run(self) -> None:
        """Wait to lead, then send until the lead is lost."""
        unsubscribe = self._database.on_notify(TOPIC, self.wake)
        try:
            async with self._database.leading(self.name):
                self._under_way.clear()
                async with asyncio.TaskGroup() as group:
                    while True:
                        await self.pause(await self._send_due(group))
        finally:
            unsubscribe()

    async def _send_due(self, group: asyncio.TaskGroup) -> float:
        """Begin what is due; returns for how many seconds nothing else is, unless something that is under way ends."""
        try:
            while len(self._under_way) < AT_ONCE:
                others, now = self._others(), self._clock.micros()
                due = await self._database.read(_due, others, now)
                if not due:
                    return await self._database.read(_rest_seconds, others, now)
                for delivery in due[: AT_ONCE - len(self._under_way)]:
                    if delivery.client_id not in self._busy():
                        self._under_way[delivery.id] = delivery.client_id
                        group.create_task(self._send(delivery))
        except DatabaseError as error:
            logger.warning("what clients are to hear of logouts cannot be read: %s", error)
            return DATABASE_AWAY_SECONDS
        return LOOK_SECONDS

    def _busy(self) -> list[str]:
        """The clients that are being told as much as one may be at once."""
        return [client for client, count in Counter(self._under_way.values()).items() if count >= OF_ONE_CLIENT]

    def _others(self) -> ColumnElement[bool]:
        """What is not under way, of clients that may be told more."""
        table = logout_deliveries.c
        return table.id.not_in(list(self._under_way)) & table.client_id.not_in(self._busy())

    async def _send(self, delivery: Delivery) -> None:
        """Tell a client, and keep what became of that."""
        called = f"a logout's notice to {delivery.client_id}"
        try:
            failure = None if delivery.url is None else await self._post(delivery.url, delivery)
        except Exception as error:  # noqa: BLE001 - it would end what is under way to others, and be the next again
            failure = outcome.unexpected(called, error)
        try:
            await outcome.keep(self._database, called, _conclude, delivery, failure, self._clock.micros())
        finally:
            self._under_way.pop(delivery.id, None)
            self.wake()

    async def _post(self, url: str, delivery: Delivery) -> str | None:
        """Tell the client; returns why it did not hear."""
        body = urlencode({"logout_token": self._token(delivery)}).encode()
        try:
            answer = await self._http.request("POST", url, headers=HEADERS, body=body, limit_bytes=ANSWER_LIMIT_BYTES)
        except (DestinationRefused, RequestFailed) as error:
            return str(error)
        return None if 200 <= answer.status < 300 else f"the client answered {answer.status}"

    def _token(self, delivery: Delivery) -> str:
        """Section 2.4: who, which session, and never a nonce."""
        seconds = self._clock.micros() // MICROS
        claims = {
            "iss": self._issuer.url,
            "aud": delivery.client_id,
            "sub": delivery.user_id,
            "sid": delivery.session_id,
            "iat": seconds,
            "exp": seconds + TOKEN_SECONDS,
            "jti": secrets.token_urlsafe(16),
            "events": {LOGOUT_EVENT: {}},
        }
        return self._issuer.keys.sign(claims, token_type="logout+jwt", algorithm=delivery.algorithm)  # noqa: S106


def _due(connection: Connection, others: ColumnElement[bool], now: int) -> Sequence[Delivery]:
    column = logout_deliveries.c.next_at
    # What has to wait for longer than anything has was put off by a clock that was ahead.
    has_come = (column <= now) | (column > now + int(LAST_RETRY_SECONDS * MICROS))
    query = (
        select(logout_deliveries, clients.c.logout_uri, clients.c.id_token_algorithm)
        .join(clients, clients.c.id == logout_deliveries.c.client_id)
        .where(has_come & others)
        .order_by(column)
        .limit(AT_ONCE)
    )
    return [
        Delivery(
            id=row.id,
            client_id=row.client_id,
            url=row.logout_uri,
            algorithm=row.id_token_algorithm,
            session_id=row.session_id,
            user_id=row.user_id,
            attempts=row.attempts,
            created_at=row.created_at,
        )
        for row in connection.execute(query)
    ]


def _rest_seconds(connection: Connection, others: ColumnElement[bool], now: int) -> float:
    """How long nothing is due, at most `LOOK_SECONDS`."""
    query = select(logout_deliveries.c.next_at).where(others).order_by(logout_deliveries.c.next_at).limit(1)
    earliest = connection.scalar(query)
    return LOOK_SECONDS if earliest is None else min(max(earliest - now, 0) / MICROS, LOOK_SECONDS)


def _conclude(connection: Connection, delivery: Delivery, failure: str | None, now: int) -> None:
    """Forget a delivery that was heard, or is not wanted, or is too old to matter; else try again later."""
    mine = logout_deliveries.c.id == delivery.id
    if failure is not None and now - delivery.created_at < GIVE_UP_SECONDS * MICROS:
        longest = min(FIRST_RETRY_SECONDS * 2**delivery.attempts, LAST_RETRY_SECONDS)
        wait = longest * random.uniform(0.5, 1)  # noqa: S311 - it spreads load, it keeps no secret
        values = {"attempts": delivery.attempts + 1, "next_at": now + int(wait * MICROS)}
        connection.execute(update(logout_deliveries).where(mine).values(values))
        return
    was_left = connection.execute(delete(logout_deliveries).where(mine)).rowcount  # or another leader has made it
    if failure is not None and was_left:
        why = {"session": delivery.session_id, "why": failure}
        audit.record(connection, Actor(now), "logout.undelivered", about=delivery.client_id, **why)
