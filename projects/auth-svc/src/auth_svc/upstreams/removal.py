"""The end of a provider: nobody signs in by way of it any more, and what it began ends with it.

One person at a time, for what is alive of one is bounded and of all is not; the provider goes last, so whoever is
interrupted removes it again. What began meanwhile, and what its remover is signed in with, ends with it.
"""

from sqlalchemy import ColumnElement, Table, delete, exists, select

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.people import accounts, consents, sessions
from auth_svc.protocol import families
from auth_svc.proving.assurance import ELSEWHERE
from auth_svc.rights.roles import says
from auth_svc.tables import families as family_table
from auth_svc.tables import sessions as session_table
from auth_svc.tables import sign_ins, upstream_arrivals, upstream_links, upstream_sign_ins, upstreams
from auth_svc.upstreams.providers import Upstream
from lib_events.database import Connection

WHY = "the provider was removed"


def end_next(connection: Connection, upstream: Upstream, after: str, actor: Actor) -> str | None:
    """End what a provider began of the next person, in order of their ids, but of who removes it; returns who it was.

    None: there is nobody left.
    """
    person = _next_person(connection, upstream, after, actor)
    if person is not None and person == actor.who:
        person = _next_person(connection, upstream, person, actor)
    if person is not None:
        _end_all(connection, upstream, person, actor)
    return person


def remove(connection: Connection, upstream: Upstream, keeps_sessions: bool, actor: Actor) -> bool:  # noqa: FBT001 - transaction functions take no keywords
    """Let nobody sign in by way of a provider any more, and end what it began; False: somebody else has removed it.

    Links stay, for the day it comes back.
    """
    one = upstreams.c.id == upstream.id
    if connection.execute(select(upstreams.c.id).where(one).with_for_update()).one_or_none() is None:
        return False
    for table in (upstream_sign_ins, upstream_arrivals):
        connection.execute(delete(table).where(table.c.upstream_id == upstream.id))
    connection.execute(delete(upstreams).where(one))
    audit.record(
        connection, actor, "upstream.removed", about=upstream.id, sessions="kept" if keeps_sessions else "ended"
    )
    if keeps_sessions:
        return True
    connection.execute(delete(sign_ins).where(_began(sign_ins, upstream)))  # they wait for their second step
    person: str | None = ""
    while person is not None and (person := _next_person(connection, upstream, person, actor)) is not None:
        _end_all(connection, upstream, person, actor)
    return True


def _end_all(connection: Connection, upstream: Upstream, user_id: str, actor: Actor) -> None:
    """What they have allowed is asked for again: it may have been somebody else who did."""
    accounts.lock(connection, user_id)
    theirs = (session_table.c.user_id == user_id) & _began(session_table, upstream)
    sessions.end_those(connection, theirs, WHY, actor.at)
    theirs = (family_table.c.user_id == user_id) & _began(family_table, upstream)
    families.revoke_all(connection, theirs, WHY, actor.at)
    consents.take_back_all(connection, user_id, actor)
    audit.record(connection, actor, "sessions.ended", about=user_id, upstream=upstream.id)


def _next_person(connection: Connection, upstream: Upstream, after: str, actor: Actor) -> str | None:
    """Return who comes after `after` of those of whom something lives that the provider began."""
    living = (
        (session_table, session_table.c.ended_at.is_(None) & (session_table.c.expires_at > actor.at)),
        # What depends on a session ends with it.
        (family_table, family_table.c.revoked_at.is_(None) & family_table.c.session_id.is_(None)),
    )
    found = [
        connection.scalar(
            select(table.c.user_id)
            .where((table.c.user_id > after) & alive & _began(table, upstream))
            .order_by(table.c.user_id)
            .limit(1)
        )
        for table, alive in living
    ]
    return min((person for person in found if person is not None), default=None)


def _began(table: Table, upstream: Upstream) -> ColumnElement[bool]:
    """Whether a row tells of a sign-in that may have been made by way of a provider.

    Its person is connected with it, maybe with another one, too; or with none any more.
    """
    mine = exists().where(upstream_links.c.user_id == table.c.user_id)
    return says(table.c.methods, ELSEWHERE) & (mine.where(upstream_links.c.issuer == upstream.issuer) | ~mine)
