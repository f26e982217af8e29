"""An example of everything the REST resources take and show; each is checked against its model."""

from typing import Any

MOMENT = "2026-05-04T09:30:00+00:00"
USER = {
    "id": "b1x0c7Yc1nq0a5m2vJ3k9w",
    "username": "grace",
    "name": "Grace Hopper",
    "email": "grace@example.org",
    "email_verified": True,
    "roles": ["member", "operator"],
    "groups": ["Support"],
    "effective_roles": ["clerk", "member", "operator"],
    "enabled": True,
    "created_at": MOMENT,
    "password": None,
}
GROUP = {"name": "Support", "description": "Who answers customers", "roles": ["clerk"]}
ROLE = {"name": "clerk", "description": "Handles orders", "includes": ["operator"], "permissions": ["orders:refund"]}
RESOURCE = {
    "id": "orders",
    "identifier": "https://orders.example.org",
    "name": "Orders",
    "scopes": {"orders": "Work with your orders"},
    "permissions": {"orders:refund": "Give money back"},
    "access_token_seconds": 300,
    "actors": ["evs-app"],
    "signing_alg": "ES256",
}
CLIENT = {
    "id": "shop",
    "name": "Shop",
    "public": False,
    "redirect_uris": ["https://shop.example.org/callback"],
    "post_logout_redirect_uris": [],
    "grant_types": ["authorization_code", "refresh_token"],
    "scopes": ["openid", "orders"],
    "roles": [],
    "access_token_seconds": 300,
}
KEY = {
    "id": "x7Qv0c7Yc1nq0a5m2vJ3k9wBvY2r8Kx1c3v5b7n9k2Lw",
    "algorithm": "ES256",
    "state": "active",
    "created_at": MOMENT,
    "active_from": "2026-05-04T10:30:00+00:00",
}
INVITATION = {"email": "new@example.org", "roles": ["member"]}
REGISTRATION_TOKEN = {"note": "For the weather team", "scopes": ["openid", "profile"]}
UPSTREAM = {
    "id": "company",
    "name": "Company",
    "issuer": "https://login.example.com",
    "client_id": "evs",
    "scopes": "openid profile email",
    "makes_accounts": False,
    "domains": ["example.com"],
}
PLACE = {"position": 42, "hash": "5f" * 32}
LINE = {
    "id": 42,
    "at": MOMENT,
    "who": "b1x0c7Yc1nq0a5m2vJ3k9w",
    "what": "user.disabled",
    "about": "Qm0t2dJ8x1c3v5b7n9k2Lw",
    "address": "192.0.2.7",
    "detail": {"username": "eve"},
} | PLACE
DOCUMENT = {
    "format": "evs-auth",
    "version": 1,
    "exported_at": MOMENT,
    "issuer": "https://sign-in.example.org",
    "resources": [RESOURCE],
    "roles": [ROLE],
    "groups": [GROUP],
    "clients": [CLIENT],
    "upstreams": [UPSTREAM],
    "users": [{"username": "grace", "email": "grace@example.org", "roles": ["operator"], "groups": ["Support"]}],
}

EXAMPLES: dict[str, Any] = {
    "UserBody": {"username": "grace", "email": "grace@example.org", "roles": ["operator"]},
    "UserChanges": {"username": "grace.h", "email": None},
    "PasswordBody": {"password": "correct horse battery staple"},
    "RolesBody": {"roles": ["operator"]},
    "UserView": USER,
    "SessionView": {
        "id": "kX3c7Yc1nq0a5m2vJ3k9wA",
        "started_at": MOMENT,
        "authenticated_at": MOMENT,
        "expires_at": "2026-05-04T21:30:00+00:00",
        "address": "192.0.2.7",
        "user_agent": "Mozilla/5.0",
    },
    "ConsentView": {"client": "shop", "scopes": ["openid", "orders"], "resources": ["https://orders.example.org"]},
    "DelegationView": {
        "id": "Vs3c7Yc1nq0a5m2vJ3k9wQ",
        "client": "evs-app",
        "purpose": "Run order-42 of the workflow order",
        "scopes": ["orders"],
        "resources": ["https://orders.example.org"],
        "created_at": MOMENT,
        "expires_at": "2026-05-11T09:30:00+00:00",
        "used_at": None,
    },
    "GroupBody": GROUP,
    "GroupChanges": {"description": "Who answers customers", "roles": ["clerk"]},
    "GroupView": GROUP | {"id": "Qm0t2dJ8x1c3v5b7n9k2Lw", "members": 3, "created_at": MOMENT},
    "RoleBody": ROLE,
    "RoleChanges": {"permissions": ["orders:refund"]},
    "RoleView": ROLE | {"built_in": False, "created_at": MOMENT},
    "ResourceBody": RESOURCE,
    "ResourceChanges": {"name": "Orders", "access_token_seconds": 60},
    "ResourceView": RESOURCE | {"built_in": False, "created_at": MOMENT, "secret": None},
    "ClientBody": CLIENT,
    "ClientPatch": {"name": "Shop", "scopes": ["openid"], "logout_uri": "https://shop.example.org/signed-out"},
    "ClientView": CLIENT
    | {
        "consent": "once",
        "origin": "administrator",
        "enabled": True,
        "created_at": MOMENT,
        "auth_method": None,
        "jwks": None,
        "jwks_uri": None,
        "id_token_algorithm": "ES256",
        "dpop_bound": False,
        "pushed_only": False,
        "logout_uri": None,
        "default_max_age": 3_600,
        "resource": None,
        "details": {"policy_uri": "https://shop.example.org/privacy"},
        "secret": None,
    },
    "UpstreamBody": UPSTREAM | {"client_secret": "the secret it gave us"},
    "UpstreamView": UPSTREAM | {"redirect_uri": "https://sign-in.example.org/login/with/company/callback"},
    "KeyView": KEY,
    "RotationBody": {"algorithm": "ES256"},
    "InvitationBody": INVITATION | {"expires_seconds": 86_400},
    "InvitationView": INVITATION
    | {
        "id": "Tq3c7Yc1nq0a5m2vJ3k9wQ",
        "status": "open",
        "created_by": "b1x0c7Yc1nq0a5m2vJ3k9w",
        "created_at": MOMENT,
        "expires_at": "2026-05-05T09:30:00+00:00",
        "used_by": None,
        "link": None,
    },
    "RegistrationTokenBody": REGISTRATION_TOKEN | {"uses": 5, "expires_in_seconds": 86_400},
    "RegistrationTokenView": REGISTRATION_TOKEN
    | {
        "id": "Pq3c7Yc1nq0a5m2vJ3k9wQ",
        "status": "good",
        "uses_left": 5,
        "created_by": "b1x0c7Yc1nq0a5m2vJ3k9w",
        "created_at": MOMENT,
        "expires_at": "2026-05-05T09:30:00+00:00",
        "token": None,
    },
    "AuditLine": LINE,
    "ChainHead": PLACE | {"anchor": {"position": 0, "hash": "0" * 64}, "anchored_at": None, "waiting": 0},
    "ChainPage": {"start": {"position": 41, "hash": "3c" * 32}, "items": [LINE], "next_cursor": None},
    "Document": DOCUMENT,
    "Report": {
        "dry_run": True,
        "counts": {"created": 1, "changed": 0, "unchanged": 0, "refused": 0},
        "items": [{"kind": "user", "name": "grace", "outcome": "created", "why": None, "secret": None}],
    },
    "AccessRequestBody": {"role": "operator", "reason": "I am on call this week"},
    "AccessRequestView": {
        "id": "Zr3c7Yc1nq0a5m2vJ3k9wQ",
        "role": "operator",
        "reason": "I am on call this week",
        "status": "pending",
        "created_at": MOMENT,
        "decided_at": None,
        "why": None,
    },
    "AccessRequestList": {"items": [], "next_cursor": None},
}
