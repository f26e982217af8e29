"""PostgreSQL is killed and started again while people sign in and out, mails leave and clients hear of logouts."""

import asyncio
import json
import os
from collections import Counter
from contextlib import suppress
from urllib.parse import parse_qs

from joserfc import jws
from rows_and_events import disagreements
from sqlalchemy import text, update

from auth_svc import audit_chain
from auth_svc.mail import outbox, postman, texts
from auth_svc.tables import mails
from lib_events.database import DatabaseError
from lib_events.testing import wait_until
from lib_events.testing.receiver import receiving

BACK = "https://hearing.example/back"
PASSWORD = "correct horse battery staple"
KILLS = int(os.environ.get("EVS_TEST_KILLS", "2"))
PEOPLE = 3
ROUNDS = 3  # that somebody has signed in and out, before the server is killed
LETTERS = 20


class People:
    """Sign in to a client and out again until told to stop, and do what they are told: try again."""

    def __init__(self, provider):
        self.provider = provider
        self.answers = Counter()
        self.ended = set()  # sessions whose end was acknowledged
        self.stop = False

    async def come_and_go(self, name):
        while not self.stop:
            with suppress(TryAgain):
                browser = await self.provider.browser()
                await self.said(self.provider.authorize(browser, client_id="hearing", redirect_uri=BACK))
                code = await self.said(browser.submit(username=name, password=PASSWORD))
                tokens = await self.said(self.provider.token(self.client, **self.form(code)))
                await self.said(browser.open("/account"))
                await self.said(browser.submit(action="/account/sign-out"))
                self.ended.add(payload(tokens.json()["id_token"])["sid"])

    async def said(self, asking):
        answer = await asking
        self.answers[answer.status_code] += 1
        if answer.status_code == 503:
            await asyncio.sleep(float(answer.headers["retry-after"]) / 20)  # as it says, only sooner
            raise TryAgain
        return answer

    def form(self, answer):
        code = {"code": self.provider.answer(answer)["code"], "code_verifier": self.provider.verifier}
        return {"grant_type": "authorization_code", "redirect_uri": BACK} | code

    async def have_gone(self):
        """Wait until some more have signed in and out."""
        enough = len(self.ended) + ROUNDS
        await wait_until(lambda: len(self.ended) >= enough)

    async def begin(self, url):
        for number in range(PEOPLE):
            await self.provider.add_user(f"person-{number}")
        self.client = await self.provider.add_client(
            id="hearing",
            name="Hearing",
            redirect_uris=(BACK,),
            scopes=frozenset(("openid", "profile", "workflows:read", "workflows:run")),
            consent="never",
            logout_uri=url,
        )


class TryAgain(Exception):
    """Nothing can be saved now."""


def payload(token):
    return json.loads(jws.extract_compact(token.encode()).payload)


class Carrier:
    """Takes mails as quickly as it can."""

    def __init__(self):
        self.taken = Counter()

    async def send(self, mail, _message):
        await asyncio.sleep(0)  # a server takes time: others have their turn
        self.taken[mail.id] += 1


async def test_what_was_acknowledged_is_kept_and_all_goes_on_by_itself(
    run_provider, tmp_path, killable_postgresql, monkeypatch
):
    monkeypatch.setattr(postman, "PAUSE_SECONDS", 0.1)
    url = f"{killable_postgresql.url}&schema=killed"
    async with receiving() as hearer, run_provider(tmp_path, url) as provider:
        database, carrier, people = provider.service.database, Carrier(), People(provider)
        provider.service.postman._transport = carrier
        await people.begin(hearer.url)
        coming = [asyncio.create_task(people.come_and_go(f"person-{number}")) for number in range(PEOPLE)]
        written = Counter()
        for kill in range(KILLS):
            await people.have_gone()
            writing = asyncio.create_task(write(provider, kill, written))
            await wait_until(lambda kill=kill: written[kill])
            await asyncio.to_thread(killable_postgresql.kill)
            await asyncio.to_thread(killable_postgresql.start)
            await writing
        await people.have_gone()
        people.stop = True
        await asyncio.gather(*coming)
        assert people.answers.keys() <= {200, 303, 503}
        await wait_until(lambda: people.ended <= heard(hearer))
        await database.transact(later)
        await wait_until(lambda: database.read(nothing_waits))
        assert len(carrier.taken) >= written.total() == KILLS * LETTERS
        assert set(carrier.taken.values()) == {1}, "that a mail was taken is kept as soon as anything can be"
        await database.read(audit_chain.verify, None)
        assert await database.read(disagreements) == []


async def write(provider, kill, written):
    """Write mails while the database goes and comes back, each until it is saved for sure."""
    while written[kill] < LETTERS:
        try:
            await provider.service.database.transact(letter, written[kill], provider.actor().at)
            written[kill] += 1
        except DatabaseError:
            await asyncio.sleep(0.05)  # as a person would who is told to try again


def heard(hearer):
    return {payload(parse_qs(each.body.decode())["logout_token"][0])["sid"] for each in hearer.received}


def later(connection):
    """Whoever lost the answer that a mail is theirs to send leaves it until their claim is over."""
    connection.execute(update(mails).values(next_attempt_at=0))
    connection.notify(outbox.MAIL_TOPIC)


def letter(connection, number, now):
    outbox.put(connection, texts.verify_address("ada", "s"), to=f"m{number}@home.test", user_id=None, now=now)


def nothing_waits(connection):
    tables = ("mails", "logout_deliveries", "roles_to_tell", "audit WHERE position IS NULL")
    left = {table: connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables}
    return not any(left.values())
