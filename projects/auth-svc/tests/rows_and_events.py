"""What the rows say and what was told of it, read past the service: every disagreement between them."""

import json
from collections import Counter

from sqlalchemy import text

ROWS = {
    "families": "SELECT id, user_id, session_id, revoked_at IS NOT NULL AS over FROM families",
    "sessions": "SELECT id, user_id, ended_at IS NOT NULL AS over FROM sessions",
    "users": "SELECT id, roles, disabled_at IS NOT NULL AS off, deleted_at IS NOT NULL AS gone FROM users",
    "clients": "SELECT id, origin, roles, disabled_at IS NOT NULL AS off FROM clients WHERE resource IS NULL",
    "roles": "SELECT name, includes FROM roles",
    "groups": "SELECT id, roles FROM groups",
    "members": "SELECT group_id, user_id FROM group_members",
    "events": "SELECT type, subject, body FROM events ORDER BY sequence",
    "audit": "SELECT what, about FROM audit",
}
# Each is one event and one line of the audit, about the same thing.
BOTH = (
    *("user.registered", "user.deleted", "user.disabled", "user.enabled", "user.password-changed"),
    *("role.created", "role.changed", "role.deleted", "group.created", "group.changed", "group.deleted"),
    *("group.member-added", "group.member-removed", "key.published", "key.revoked"),
    *("client.registered", "client.removed", "client.disabled", "client.enabled", "client.secret-rotated"),
)
BUILT_IN = {"admin": {"operator"}, "operator": {"member"}}


def disagreements(connection):
    """Transaction function: what is wrong, in words; nothing is what it must be."""
    found = {name: connection.execute(text(query)).all() for name, query in ROWS.items()}
    told = [
        (row.type.removeprefix("evs."), row.subject, json.loads(bytes(row.body))["data"]) for row in found["events"]
    ]
    number = Counter((what, about) for what, about, _ in told)
    return [
        *_of_the_audit(found, number),
        *_of_what_ends(found, number, told),
        *_of_who_may_act(found, told),
        *_of_rights(found, told),
    ]


def _of_the_audit(found, number):
    lines = Counter((row.what, row.about) for row in found["audit"])
    for what, about in number.keys() | lines.keys():
        if what in BOTH and number[what, about] != lines[what, about]:
            yield f"{what} of {about}: {number[what, about]} events, {lines[what, about]} lines of the audit"


def _of_what_ends(found, number, told):
    over, off = {row.id for row in found["sessions"] if row.over}, {row.id for row in found["users"] if row.off}
    for row in (*found["sessions"], *found["families"]):
        if row.user_id in off and not row.over:
            yield f"{row.id} lives, and user {row.user_id} is disabled"
    for row in found["sessions"]:
        if (number["session.started", row.id], number["session.ended", row.id]) != (1, int(row.over)):
            yield f"session {row.id} is over: {row.over}; told otherwise"
    revoked = Counter(data["family"] for what, _, data in told if what == "token.revoked")
    for row in found["families"]:
        spoken_for = row.session_id in over
        if spoken_for and not row.over:
            yield f"family {row.id} lives in a session that is over"
        if revoked[row.id] > row.over or (row.over and not spoken_for and not revoked[row.id]):
            yield f"family {row.id} is over: {row.over}; told {revoked[row.id]} times"


def _of_who_may_act(found, told):
    for kind, begin in (("user", "user.registered"), ("client", "client.registered")):
        said = {}
        for what, about, _ in told:
            if what in (begin, f"{kind}.enabled"):
                said[about] = "on"
            elif what in (f"{kind}.disabled", f"{kind}.deleted", f"{kind}.removed"):
                said[about] = "off" if what.endswith("disabled") else "gone"
        there = {
            row.id: "gone" if getattr(row, "gone", False) else "off" if row.off else "on" for row in found[f"{kind}s"]
        }
        for about, what in said.items():
            if there.get(about, "gone") != what:
                yield f"{kind} {about} is {there.get(about, 'gone')}, and told to be {what}"


def _state(row):
    if getattr(row, "gone", False):
        return "gone"
    return "off" if row.off else "on"


def _of_rights(found, told):
    includes = {row.name: BUILT_IN.get(row.name, set()) | set(json.loads(row.includes)) for row in found["roles"]}
    group_roles = {row.id: json.loads(row.roles) for row in found["groups"]}
    last = {about: set(data["roles"]) for what, about, data in told if what == "user.roles-changed"}
    for user in found["users"]:
        named = set(json.loads(user.roles))
        named |= {name for row in found["members"] if row.user_id == user.id for name in group_roles[row.group_id]}
        if named - includes.keys():
            yield f"user {user.id} holds {sorted(named - includes.keys())}, which nobody has described"
        elif not user.gone and user.id in last and last[user.id] != held(named, includes):
            yield f"user {user.id} holds {sorted(held(named, includes))}, and is told to hold {sorted(last[user.id])}"


def held(names, includes):
    """The roles and all that they include."""
    known, rest = set(), list(names)
    while rest:
        if (name := rest.pop()) not in known:
            known.add(name)
            rest += includes.get(name, ())
    return known
