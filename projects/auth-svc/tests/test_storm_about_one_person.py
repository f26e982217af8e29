"""Two things that are done about one person, ten times each at once, drawn by chance of all that there are.

`EVS_TEST_STORM=50` draws fifty times as many, `EVS_TEST_STORM_SEED=7` others.
"""

import asyncio
import os
import random
from itertools import combinations_with_replacement

from about_one_person import COMMANDS, Somebody, call
from rows_and_events import disagreements, held

from auth_svc import rate_limits

SIZE = int(os.environ.get("EVS_TEST_STORM", "1"))
SEED = int(os.environ.get("EVS_TEST_STORM_SEED", "1"))
PAIRS = 8
TIMES = 10


async def test_of_two_things_at_once_about_one_person_nothing_is_left_over(provider, monkeypatch, subtests):
    monkeypatch.setattr(rate_limits.Attempts, "begin", lambda _limits, _key: None)
    admin = {"authorization": f"Bearer {await provider.admin_token()}"}
    every = list(combinations_with_replacement(COMMANDS, 2))
    for pair in random.Random(SEED).sample(every, min(PAIRS * SIZE, len(every))):
        with subtests.test(pair):
            person = await Somebody.arrive(provider, admin)
            acts = [await COMMANDS[name](person) for name in pair]
            answers = await asyncio.gather(*(act() for act in acts * TIMES))
            assert [answer.text for answer in answers if answer.status_code >= 500] == []
            assert await left_over(person, answers) == []
            assert await provider.service.database.read(disagreements) == []


async def left_over(person, answers):
    """The tokens that say more than their person and client have by now."""
    provider, told = person.provider, [*person.tokens, *filter(None, map(json_of, answers))]
    user = await call(provider, person.admin, "GET", f"/users/{person.id}")
    client = await call(provider, person.admin, "GET", f"/clients/{person.client[0]}")
    roles = (await call(provider, person.admin, "GET", "/roles")).json()["items"]
    includes = {role["name"]: role["includes"] for role in roles}
    may = held(user.json()["effective_roles"], includes) if user.is_success and user.json()["enabled"] else set()
    scopes = set(client.json()["scopes"]) if client.is_success and client.json()["enabled"] else set()
    found = [await provider.introspect(tokens["access_token"]) for tokens in told if "access_token" in tokens]
    return [
        claims
        for claims in found
        if claims["active"] and not (set(claims["roles"]) <= may and set(claims["scope"].split()) <= scopes)
    ]


def json_of(answer):
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return answer.json() if is_json and answer.status_code == 200 else None
