"""The AuthService's tables, as SQLAlchemy Core describes them.

Secrets are kept as SHA-256 digests (they have 256 bits of their own), passwords as Argon2id hashes. Lists are
JSON texts. Times are microseconds since the epoch, UTC.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from lib_events.database import Schema

metadata = MetaData()
SCHEMA = Schema("auth_svc", metadata, "auth_svc.migrations")

# SQLite numbers rows by itself only for INTEGER; PostgreSQL needs 64 bits.
Number = BigInteger().with_variant(Integer, "sqlite")

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("username", Text, nullable=False),
    Column("username_key", Text, nullable=False, unique=True),  # folded: ADA and ada are one person
    Column("email", Text),
    Column("password_hash", Text),
    Column("roles", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("password_changed_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Column("tokens_valid_after", BigInteger, nullable=False),  # older access tokens are refused
)

clients = Table(
    "clients",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_digest", LargeBinary),  # NULL: a public client
    Column("redirect_uris", Text, nullable=False),
    Column("post_logout_redirect_uris", Text, nullable=False),
    Column("grant_types", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("roles", Text, nullable=False),  # what the client itself may do with client credentials
    Column("consent", Text, nullable=False),  # never | once | always
    Column("access_token_seconds", Integer, nullable=False),
    Column("resource", Text),  # the audience this client serves: it may read revocations and introspect
    Column("loopback_only", Boolean, nullable=False),  # valid only while the issuer is on loopback
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),  # of the cookie
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("authenticated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("methods", Text, nullable=False, server_default='["pwd"]'),  # how the person proved who they are
    Column("address", Text),
    Column("user_agent", Text),
    Index("sessions_user", "user_id"),
    Index("sessions_expires", "expires_at"),
)

# One authorisation: what one person allowed one client. All tokens that come from it live and die with it.
families = Table(
    "families",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("client_id", Text, ForeignKey("clients.id"), nullable=False),
    Column("session_id", Text, ForeignKey("sessions.id")),  # NULL: outlives the session (offline_access)
    Column("scope", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("authenticated_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("revoked_why", Text),
    Column("methods", Text, nullable=False, server_default="[]"),  # of the session, when it was allowed
    Index("families_user", "user_id"),
    Index("families_session", "session_id"),
)

codes = Table(
    "codes",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("family_id", Text, ForeignKey("families.id"), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("challenge", Text, nullable=False),
    Column("nonce", Text),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Index("codes_expires", "expires_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("family_id", Text, ForeignKey("families.id"), nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Index("refresh_tokens_family", "family_id"),
    Index("refresh_tokens_expires", "expires_at"),
)

device_codes = Table(
    "device_codes",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("user_code", Text, nullable=False, unique=True),
    Column("client_id", Text, ForeignKey("clients.id"), nullable=False),
    Column("scope", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("status", Text, nullable=False),  # pending | approved | denied | consumed
    Column("family_id", Text, ForeignKey("families.id")),  # once approved
    Column("interval_seconds", Integer, nullable=False),
    Column("polled_at", BigInteger),
    Column("expires_at", BigInteger, nullable=False),
    Index("device_codes_expires", "expires_at"),
)

consents = Table(
    "consents",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("client_id", Text, ForeignKey("clients.id"), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("granted_at", BigInteger, nullable=False),
)

# Single access tokens that were revoked; families, sessions, users and clients carry their own mark.
revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("token_id", Text, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Index("revoked_tokens_expires", "expires_at"),
)

access_requests = Table(
    "access_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("status", Text, nullable=False),  # pending | granted | refused
    Column("created_at", BigInteger, nullable=False),
    Column("decided_at", BigInteger),
    Column("decided_by", Text),
    Column("why", Text),
    Index("access_requests_user", "user_id"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", Text, primary_key=True),  # the RFC 7638 thumbprint
    Column("public_key", Text, nullable=False),  # JWK
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text),  # a subject, or NULL when nobody is signed in
    Column("what", Text, nullable=False),
    Column("about", Text),  # the id of what it was done to
    Column("address", Text),  # where it came from
    Column("detail", Text, nullable=False),  # JSON
    Index("audit_at", "at"),
)

# A sign-in that waits for its second factor, or a session that is asked for one more.
sign_ins = Table(
    "sign_ins",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # of the cookie
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("methods", Text, nullable=False),  # what was proven so far
    Column("session_id", Text),  # the session that is to become stronger; NULL: there will be a new one
    Column("wanted", Text),  # the level that is asked for
    Column("way_on", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("sign_ins_user", "user_id"),
    Index("sign_ins_expires", "expires_at"),
)

authenticator_apps = Table(
    "authenticator_apps",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # the secret, encrypted: it must be used again
    Column("created_at", BigInteger, nullable=False),
    Column("confirmed_at", BigInteger),  # NULL: set up, but not shown to work
    Column("last_step", BigInteger, nullable=False),  # codes of it and of earlier steps are used up
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("credential_id", LargeBinary, nullable=False, unique=True),
    Column("public_key", LargeBinary, nullable=False),  # COSE
    Column("sign_count", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("synced", Boolean, nullable=False),  # a copy of it is on the person's other devices
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Index("passkeys_user", "user_id"),
)

# WebAuthn challenges that were answered: none is taken a second time while it could still be answered.
used_challenges = Table(
    "used_challenges",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Index("used_challenges_expires", "expires_at"),
)

# Other OpenID providers whose people may sign in here.
upstreams = Table(
    "upstreams",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("issuer", Text, nullable=False, unique=True),
    Column("client_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # the client's secret, encrypted: it must be used again
    Column("scopes", Text, nullable=False),
    Column("makes_accounts", Boolean, nullable=False),
    Column("domains", Text, nullable=False),  # whose e-mail addresses may come; none: all
    Column("created_at", BigInteger, nullable=False),
)

upstream_links = Table(
    "upstream_links",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("linked_at", BigInteger, nullable=False),
    Index("upstream_links_user", "user_id"),
)

upstream_sign_ins = Table(
    "upstream_sign_ins",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # of the state
    Column("browser", LargeBinary, nullable=False),  # the digest of the cookie of the browser that began it
    Column("upstream_id", Text, ForeignKey("upstreams.id"), nullable=False),
    Column("user_id", Text, ForeignKey("users.id")),  # who wants to link an account; NULL: somebody signs in
    Column("sealed", LargeBinary, nullable=False),  # nonce and PKCE verifier
    Column("way_on", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("upstream_sign_ins_expires", "expires_at"),
)
