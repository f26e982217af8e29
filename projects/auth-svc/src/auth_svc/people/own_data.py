"""What we keep of a person: all of it for them to take along, and the end of it."""

import json
from typing import Any

from sqlalchemy import Row, delete, func, or_, select, update

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.people import access_requests, accounts, administrators, connected_apps, delegations
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import end_all_of_user, started_at
from auth_svc.protocol.families import revoke_access_tokens, revoke_all_of_user
from auth_svc.tables import access_requests as request_table
from auth_svc.tables import audit as audit_table
from auth_svc.tables import (
    authenticator_apps,
    families,
    invitations,
    mail_links,
    metadata,
    passkeys,
    recovery_codes,
    sessions,
    upstream_links,
    users,
)
from lib_auth.events import UserDeleted, UserDeletedData
from lib_events.clock import to_datetime
from lib_events.database import Connection
from lib_events.event import Event

MOST_AUDIT_LINES = 10_000
KEPT = (sessions, families, request_table, invitations)  # without what is personal, until nothing needs them
NOBODY = "deleted user"


def export(connection: Connection, account: Account, now: int) -> dict[str, Any]:
    """Return everything about a person that is kept here, but for what proves who they are."""
    mine = sessions.c.user_id == account.id
    about_me = or_(audit_table.c.about == account.id, audit_table.c.who == account.id)
    lines = select(audit_table).where(about_me).order_by(audit_table.c.id.desc()).limit(MOST_AUDIT_LINES)
    return {
        "profile": _profile(account),
        "groups": sorted(account.groups),
        **_ways_in(connection, account.id),
        "addresses_to_confirm": _addresses_to_confirm(connection, account.id, now),
        "invitations": [
            {"email": row.email, "roles": json.loads(row.roles), "used_at": _time(row.used_at)}
            for row in connection.execute(select(invitations).where(invitations.c.used_by == account.id))
        ],
        "access_requests": [
            {
                "role": asked.role,
                "reason": asked.reason,
                "status": asked.status,
                "asked_at": _time(asked.created_at),
                "decided_at": _time(asked.decided_at),
                "why": asked.why,
            }
            for asked in access_requests.of_user(connection, account.id)
        ],
        "sessions": [
            {
                "id": row.id,
                "started_at": _time(started_at(row)),
                "last_seen_at": _time(row.last_seen_at),
                "ended_at": _time(row.ended_at),
                "address": row.address,
                "browser": row.user_agent,
            }
            for row in connection.execute(select(sessions).where(mine).order_by(sessions.c.expires_at))
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


def _ways_in(connection: Connection, user_id: str) -> dict[str, Any]:
    """Return what a person proves who they are with, by its names and times alone."""
    app = select(authenticator_apps.c.confirmed_at).where(authenticator_apps.c.user_id == user_id)
    unused = (recovery_codes.c.user_id == user_id) & recovery_codes.c.used_at.is_(None)
    return {
        "authenticator_app": {"since": _time(since)} if (since := connection.scalar(app)) else None,
        "recovery_codes_left": connection.scalar(select(func.count()).select_from(recovery_codes).where(unused)),
        "passkeys": [
            {"name": row.name, "since": _time(row.created_at), "last_used_at": _time(row.used_at), "synced": row.synced}
            for row in connection.execute(select(passkeys).where(passkeys.c.user_id == user_id))
        ],
        "other_providers": [
            {"issuer": row.issuer, "subject": row.subject, "since": _time(row.linked_at)}
            for row in connection.execute(select(upstream_links).where(upstream_links.c.user_id == user_id))
        ],
    }


def _addresses_to_confirm(connection: Connection, user_id: str, now: int) -> list[str]:
    mine = (mail_links.c.user_id == user_id) & (mail_links.c.purpose == "verify")
    waiting = mine & mail_links.c.used_at.is_(None) & (mail_links.c.expires_at > now)
    return list(connection.scalars(select(mail_links.c.email).where(waiting)))


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
    connection.execute(update(request_table).where(request_table.c.user_id == user_id).values(reason=""))
    connection.execute(update(sessions).where(sessions.c.user_id == user_id).values(address=None, user_agent=None))
    nothing = dict.fromkeys(("email", "email_key", "email_verified_at", "name", "password_hash"))
    # No user name has a colon: nobody can take the key of who is gone.
    gone = {"username": NOBODY, "username_key": f"deleted:{user_id}", "roles": "[]"}
    gone_at = {"disabled_at": now, "deleted_at": now, "changed_at": now, "tokens_valid_after": now}
    connection.execute(update(users).where(users.c.id == user_id).values(nothing | gone | gone_at))


def _time(micros: int | None) -> str | None:
    return None if micros is None else to_datetime(micros).isoformat()
