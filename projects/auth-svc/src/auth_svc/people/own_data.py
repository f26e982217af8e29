"""What we keep of a person: all of it for them to take along, and the end of it."""

import json
from typing import Any

from sqlalchemy import Row, delete, or_, select, update

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.people import accounts, administrators, connected_apps, delegations
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import end_all_of_user
from auth_svc.protocol.families import revoke_access_tokens, revoke_all_of_user
from auth_svc.tables import access_requests, families, invitations, metadata, sessions, users
from auth_svc.tables import audit as audit_table
from lib_auth.events import UserDeleted, UserDeletedData
from lib_events.clock import to_datetime
from lib_events.database import Connection
from lib_events.event import Event

MOST_AUDIT_LINES = 10_000
KEPT = (sessions, families, access_requests, invitations)  # without what is personal, until nothing needs them
NOBODY = "deleted user"


def export(connection: Connection, account: Account, now: int) -> dict[str, Any]:
    """Return everything about a person that is kept here, but for what proves who they are."""
    mine = sessions.c.user_id == account.id
    about_me = or_(audit_table.c.about == account.id, audit_table.c.who == account.id)
    lines = select(audit_table).where(about_me).order_by(audit_table.c.id.desc()).limit(MOST_AUDIT_LINES)
    return {
        "profile": _profile(account),
        "sessions": [
            {
                "id": row.id,
                "started_at": _time(row.authenticated_at),
                "last_seen_at": _time(row.last_seen_at),
                "ended_at": _time(row.ended_at),
                "address": row.address,
                "browser": row.user_agent,
            }
            for row in connection.execute(select(sessions).where(mine).order_by(sessions.c.authenticated_at))
        ],
        "connected_apps": [
            {"client": app.client_id, "name": app.name, "scopes": sorted(app.scopes), "since": _time(app.since)}
            for app in connected_apps.apps_of(connection, account.id, now)
        ],
        "delegations": [
            {
                "client": each.family.client_id,
                "purpose": each.purpose,
                "scopes": sorted(each.family.scopes),
                "resources": list(each.family.resources),
                "expires_at": _time(each.expires_at),
            }
            for each in delegations.alive_of_user(connection, account.id, now)
        ],
        "audit": [
            {"at": _time(row.at), "what": row.what, "address": _address(row, account), "detail": json.loads(row.detail)}
            for row in connection.execute(lines)
        ],
    }


def _address(row: Row[Any], account: Account) -> str | None:
    """Where a line came from, but for where somebody else was who did something about them: that is not theirs."""
    address: str | None = row.address
    return address if row.who in (None, account.id) else None


def record_export(connection: Connection, actor: Actor) -> None:
    """Say that a person took everything along: if it was somebody else with their session, they shall see it."""
    audit.record(connection, actor, "user.exported", about=actor.who)


def delete_account(connection: Connection, user_id: str, actor: Actor) -> None:
    """End all of a person's sign-ins and erase what is personal; raises `LastAdministrator`.

    The row stays for its id, which the audit names.
    """
    with administrators.keeping_one(connection):
        accounts.existing(connection, user_id)
        _erase_all(connection, user_id, actor)
    payload = UserDeletedData(user=user_id, by=actor.who)
    connection.publish(Event.of(UserDeleted, payload, source=connection.source, subject=user_id))
    audit.record(connection, actor, "user.deleted", about=user_id)


def _erase_all(connection: Connection, user_id: str, actor: Actor) -> None:
    end_all_of_user(connection, user_id, "user deleted", actor.at)
    revoke_all_of_user(connection, user_id, "user deleted", actor.at)
    revoke_access_tokens(connection, actor.at, user=user_id)
    _erase(connection, user_id, actor.at)


def _profile(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "username": account.username,
        "name": account.name,
        "email": account.email,
        "email_verified": account.email_verified,
        "roles": sorted(account.roles),
        "created_at": _time(account.created_at),
        "changed_at": _time(account.changed_at),
    }


def _erase(connection: Connection, user_id: str, now: int) -> None:
    for table in reversed(metadata.sorted_tables):
        owner = next((key.parent for key in table.foreign_keys if key.column is users.c.id), None)
        if owner is not None and table not in KEPT:
            connection.execute(delete(table).where(owner == user_id))
    connection.execute(update(invitations).where(invitations.c.used_by == user_id).values(email=None))
    connection.execute(update(access_requests).where(access_requests.c.user_id == user_id).values(reason=""))
    connection.execute(update(sessions).where(sessions.c.user_id == user_id).values(address=None, user_agent=None))
    nothing = dict.fromkeys(("email", "email_key", "email_verified_at", "name", "password_hash"))
    # No user name has a colon: nobody can take the key of who is gone.
    gone = {"username": NOBODY, "username_key": f"deleted:{user_id}", "roles": "[]"}
    gone_at = {"disabled_at": now, "deleted_at": now, "changed_at": now, "tokens_valid_after": now}
    connection.execute(update(users).where(users.c.id == user_id).values(nothing | gone | gone_at))


def _time(micros: int | None) -> str | None:
    return None if micros is None else to_datetime(micros).isoformat()
