"""`kill -9` of the AuthService at each commit of what it does at its start and in the background, again and again.

In the end everything is done, and what is kept is done once; what another heard before it was kept, it hears again.
`EVS_TEST_CRASHES=1000` kills it at all of them, otherwise some are drawn by chance.
"""

import asyncio
import json
import os
import random
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest
from joserfc import jws
from sqlalchemy import func, insert, select, text, update

from auth_svc import audit_chain, first_start
from auth_svc.audit import Actor
from auth_svc.clients.client import Client
from auth_svc.clients.clients import register
from auth_svc.composition import SCHEMAS
from auth_svc.mail import outbox, texts
from auth_svc.people import accounts, recovery, sessions
from auth_svc.people.accounts import NewAccount
from auth_svc.settings import SERVICE, AuthSettings
from auth_svc.tables import families, logout_deliveries, mails, proofs, roles_to_tell, signing_keys
from lib_events.clock import SystemClock
from lib_events.database import open_database
from lib_events.testing import wait_until
from lib_events.testing.forks import Forks
from lib_events.testing.ports import free_ports
from lib_events.testing.receiver import receiving

pytestmark = pytest.mark.opened_elsewhere

FORKS = Forks(f"{Path(__file__).with_name('mortal_service.py')}:main", ["auth_svc.serving"])
NUMBER = int(os.environ.get("EVS_TEST_CRASHES", "4"))
START = ("keep_contracts", "_publish_unless", "create_admin", "put_built_in", "put_clients")
BACKGROUND = ("Consumer._handle_in", "_conclude", "claim", "forget", "answer", "tell", "chain_next", "prune")
BACKGROUND += ("_publish_unless", "retire")  # of keys
LIFE_SECONDS = 60


class Killed:
    """An AuthService that is killed and started again on the same data."""

    def __init__(self, folder, database_url):
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        self.settings = AuthSettings(data=folder / "evs", auth_url=self.url)
        self.database_url = database_url
        self.given = ("--data", str(self.settings.data), "--port", str(port))
        self.clock = SystemClock()
        self.lives = 0

    def start(self, **variables):
        given = {"EVS_AUTH_DATABASE_URL": self.database_url, "EVS_AUTH_URL": self.url} | variables
        with self.log.open("ab") as log:
            return FORKS.start(*self.given, env=dict(os.environ) | given, stderr=log)

    async def dies(self, moment, name):
        process = self.start(EVS_TEST_DIES=f"{moment} {name}")
        try:
            assert await asyncio.to_thread(process.wait, LIFE_SECONDS) == -9, self.log.read_text()[-2000:]
        finally:
            process.kill()

    @asynccontextmanager
    async def living(self):
        process = self.start()
        try:
            async with httpx.AsyncClient(base_url=self.url) as http:

                async def ready():
                    try:
                        return (await http.get("/readyz")).is_success
                    except httpx.TransportError:
                        return False

                await wait_until(ready)
                yield http
        finally:
            process.terminate()
            assert await asyncio.to_thread(process.wait, LIFE_SECONDS) == 0

    async def within(self, function, *args):
        """Do something past the service, while it is dead."""
        database = await open_database(self.database_url, service=SERVICE, schemas=SCHEMAS)
        try:
            return await database.transact(function, *args)
        finally:
            await database.close()

    async def give_work(self):
        self.lives += 1
        await self.within(work, self.lives, Actor(self.clock.micros(), "test"))


def work(connection, number, actor):
    """Something for each loop to do, and what a while passed by does not have to be waited for."""
    name = f"person-{number}"
    new = NewAccount(name, None, f"{name}@home.test", frozenset(("member",)), email_verified=True)
    person = accounts.register(connection, new, actor)
    session = sessions.start(connection, name, person.id, actor, "a browser")
    allowed = {"id": name, "user_id": person.id, "client_id": "hearing", "started_in": session.id, "scope": "openid"}
    times = {"authenticated_at": 1, "created_at": actor.at}
    connection.execute(insert(families).values(**allowed, **times, resources="[]"))
    sessions.end(connection, session.id, "signed out", actor.at)
    outbox.put(connection, texts.verify_address(name, "secret"), to=f"{name}@x.test", user_id=None, now=actor.at)
    recovery.ask(connection, name, actor)
    connection.execute(insert(roles_to_tell).values(user_id=person.id, by="test"))
    connection.execute(insert(proofs).values(digest=name.encode(), expires_at=1))
    connection.execute(update(mails).values(next_attempt_at=0))
    connection.execute(update(logout_deliveries).values(next_at=0))
    for place, key in enumerate(connection.scalars(select(signing_keys.c.id).order_by(signing_keys.c.active_from))):
        old = update(signing_keys).where(signing_keys.c.id == key)
        connection.execute(old.values(created_at=place + 1, active_from=place + 1))


def left(connection):
    """How much waits, by table."""
    tables = ("mails", "recoveries", "roles_to_tell", "logout_deliveries", "proofs", "audit WHERE position IS NULL")
    return {table: number for table in tables if (number := connection.scalar(text(f"SELECT count(*) FROM {table}")))}


def told(connection):
    """How often each event was told, by type and subject."""
    return Counter(map(tuple, connection.execute(text("SELECT type, subject FROM events"))))


def heard(hearer):
    """How often the end of each session was heard of."""
    tokens = [parse_qs(received.body.decode())["logout_token"][0] for received in hearer.received]
    return Counter(json.loads(jws.extract_compact(token.encode()).payload)["sid"] for token in tokens)


def drawn(names, database_url):
    """Some of the moments to die in, others on each database, in order."""
    moments = [(moment, name) for name in names for moment in ("before", "after")]
    draw = random.Random(database_url.partition(":")[0])
    return sorted(draw.sample(moments, min(NUMBER, len(moments))), key=moments.index)


async def test_whatever_is_done_behind_requests_is_done_whenever_the_service_is_killed(tmp_path, database_url):
    service = Killed(tmp_path, database_url)
    for moment, name in drawn(START, database_url):
        await service.dies(moment, name)
    async with receiving() as hearer:
        client = Client(id="hearing", name="Hearing", logout_uri=hearer.url)
        await service.within(register, client, Actor(1, "test"))
        for moment, name in drawn(BACKGROUND, database_url):
            await service.give_work()
            await service.dies(moment, name)
        await service.give_work()
        async with service.living() as http:
            await wait_until(lambda: len(heard(hearer)) == service.lives)
            await wait_until(lambda: mailed(service))
            await check_secrets(service, http)
        assert await service.within(left) == {}
        events = await service.within(told)
        await check_kept(service, events)
    assert heard(hearer).keys() == {subject for what, subject in events if what == "evs.session.ended"}


def mailed(service):
    """Whether everybody has both mails."""
    kinds = Counter(path.name.split("-")[1] for path in service.settings.mails.glob("*.eml"))
    return kinds == {"verify": service.lives, "recover": service.lives}


async def check_secrets(service, http):
    """What a start writes into files is what the rows know."""
    secret = first_start.secret_file(service.settings, "evs-local").read_text()
    form = {"grant_type": "client_credentials"}
    assert (await http.post("/oauth2/token", data=form, auth=("evs-local", secret))).status_code == 200
    secret = first_start.secret_file(service.settings, "evs-app").read_text()
    assert (await http.post("/oauth2/introspect", data={"token": "x"}, auth=("evs-app", secret))).status_code == 200
    page = await http.get("/login")
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    password = first_start.initial_password_file(service.settings).read_text()
    form = {"username": "admin", "password": password, "csrf": csrf}
    assert (await http.post("/login", data=form, headers={"origin": service.url})).status_code == 303


async def check_kept(service, events):
    """Each thing was done once, and told once."""
    verified = await service.within(audit_chain.verify, None)
    assert verified.head.position == await service.within(lambda c: c.scalar(text("SELECT count(*) FROM audit")))
    assert set(events.values()) == {1}
    by_type = Counter(what for what, _ in events)
    assert (by_type["evs.user.roles-changed"], by_type["evs.session.ended"]) == (service.lives, service.lives)
    keys = await service.within(lambda c: c.execute(select(signing_keys)).all())
    assert by_type["evs.key.published"] == len(keys)
    assert by_type["evs.key.retired"] == sum(key.retired_at is not None for key in keys)
    asked = select(func.count()).where(text("what = 'user.recovery-asked'")).select_from(text("audit"))
    assert await service.within(lambda c: c.scalar(asked)) == service.lives
