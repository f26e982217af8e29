"""auth-svc as a program that is killed at a commit: `EVS_TEST_DIES=after claim` names the function and the moment.

`before` it everything else is done that this commit is to keep, `after` it nobody has heard of it yet.
"""

import os
import signal

from auth_svc import __main__
from auth_svc.mail import postman
from auth_svc.protocol import key_rotation
from lib_events.adapters.postgresql import PostgresqlDatabase
from lib_events.adapters.sqlite import SqliteDatabase

SOON_SECONDS = 0.05  # instead of a minute


def dying(transact, moment, name):
    async def transact_or_die(database, function, *args, **options):
        is_it = getattr(function, "__qualname__", "") == name
        if is_it and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = await transact(database, function, *args, **options)
        if is_it and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return transact_or_die


def main():
    moment, _, name = os.environ.get("EVS_TEST_DIES", "never").partition(" ")
    for adapter in (SqliteDatabase, PostgresqlDatabase):
        adapter.transact = dying(adapter.transact, moment, name)
    key_rotation.LOOK_SECONDS = postman.PAUSE_SECONDS = SOON_SECONDS
    __main__.main()
