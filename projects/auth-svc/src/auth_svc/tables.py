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
    false,
    text,
)

from lib_events.database import Schema

metadata = MetaData()
SCHEMA = Schema("auth_svc", metadata, "auth_svc.migrations")

# SQLite numbers rows by itself only for INTEGER; PostgreSQL needs 64 bits.
Number = BigInteger().with_variant(Integer, "sqlite")

# Not one of today's parameters; where those change, a new index is to follow.
IMPORTED = "password_hash NOT LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'"

UNREVOKED, UNENDED = text("revoked_at IS NULL"), text("ended_at IS NULL")

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("username", Text, nullable=False),
    Column("username_key", Text, nullable=False, unique=True),  # folded: ADA and ada are one person
    Column("email", Text),
    Column("email_key", Text),  # folded
    Column("email_verified_at", BigInteger),
    Column("name", Text),  # how others call the person
    Column("changed_at", BigInteger),  # of the profile; NULL: never
    Column("deleted_at", BigInteger),  # nothing personal is left in the row then
    Column("password_hash", Text),
    Column("roles", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("password_changed_at", BigInteger, nullable=False),
    Column("wrong_codes", Integer, nullable=False, server_default="0"),  # of a second step, in a row
    Column("wrong_passwords", Integer, nullable=False, server_default="0"),  # in a row, from unknown browsers
    Column("disabled_at", BigInteger),
    Column("tokens_valid_after", BigInteger, nullable=False),  # older access tokens are refused
    Index("users_email", "email_key"),
    # Those who came from elsewhere and have not signed in yet: few, and none in the end.
    Index("users_imported", "id", sqlite_where=text(IMPORTED), postgresql_where=text(IMPORTED)),
    # An address that was proven belongs to one person.
    Index(
        "users_verified_email",
        "email_key",
        unique=True,
        sqlite_where=text("email_verified_at IS NOT NULL"),
        postgresql_where=text("email_verified_at IS NOT NULL"),
    ),
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
    Column("auth_method", Text),  # NULL: its secret, in the header or in the form
    Column("jwks", Text),  # the client's own public keys
    Column("jwks_uri", Text),  # … or where they are
    Column("id_token_algorithm", Text, nullable=False, server_default="ES256"),
    Column("dpop_bound", Boolean, nullable=False, server_default=false()),  # only tokens bound to a key
    Column("pushed_only", Boolean, nullable=False, server_default=false()),  # only pushed authorization requests
    Column("logout_uri", Text),  # where it wants to hear of logouts (back-channel)
    Column("details", Text, nullable=False, server_default="{}"),  # JSON: what is only shown
    Column("origin", Text, nullable=False, server_default="administrator"),
    Column("registration_digest", LargeBinary),  # of the token with which it manages itself (RFC 7592)
    Column("fetched_at", BigInteger),  # when its metadata document was read
    Column("tokens_valid_after", BigInteger, nullable=False, server_default="0"),  # older access tokens are refused
    Column("granted_at", BigInteger),  # of a registered one: when it last got a token, to the day
    Column("default_max_age", Integer),  # how many seconds old a sign-in may be, unless a request says so
    Index("clients_origin", "origin", "created_at"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),  # of the cookie
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("authenticated_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),  # none: a release that gave all the same time started it
    Column("expires_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("last_seen_at", BigInteger),
    Column("methods", Text, nullable=False, server_default='["pwd"]'),  # how the person proved who they are
    Column("address", Text),
    Column("user_agent", Text),
    Index("sessions_user", "user_id"),
    Index("sessions_expires", "expires_at"),
    Index("sessions_alive", "user_id", "expires_at", sqlite_where=UNENDED, postgresql_where=UNENDED),
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
    Column("started_in", Text),  # the session in which it was allowed, whether or not it depends on it
    Column("key_thumbprint", Text),  # its refresh tokens are for the holder of this key (RFC 9449 section 5)
    Column("methods", Text, nullable=False, server_default="[]"),  # of the session, when it was allowed
    Index("families_user", "user_id"),
    Index("families_session", "session_id"),
    Index("families_client", "client_id"),
    Index("families_started_in", "started_in"),
    Index("families_alive", "user_id", "client_id", "created_at", sqlite_where=UNREVOKED, postgresql_where=UNREVOKED),
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
    Column("key_thumbprint", Text),  # only the holder of this key may redeem it (RFC 9449 section 10)
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
    Column("salt", LargeBinary),  # once used: with it and the token itself its successor can be told again
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
    Column("address", Text),  # where the device asks from
    Index("device_codes_expires", "expires_at"),
)

# What a client may do for a person while they are away: a family without secrets, asked for by its id (RFC 8693).
delegations = Table(
    "delegations",
    metadata,
    Column("id", Text, primary_key=True),  # worth nothing without the client's own authentication
    Column("family_id", Text, ForeignKey("families.id"), nullable=False, unique=True),
    Column("purpose", Text, nullable=False),  # what the person reads about it
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),  # for the first time
    Index("delegations_expires", "expires_at"),
)

consents = Table(
    "consents",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("client_id", Text, ForeignKey("clients.id"), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("resources", Text, nullable=False),
    Column("granted_at", BigInteger, nullable=False),
    Column("away", Text, nullable=False, server_default=""),  # the scopes that were allowed with offline_access
    Index("consents_client", "client_id"),
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
    Column("retired_at", BigInteger),  # no longer published: its last token has expired
    Column("algorithm", Text, nullable=False, server_default="ES256"),
    Column("sealed_key", LargeBinary),  # the private half; NULL once it signs no more
    Column("active_from", BigInteger, nullable=False, server_default="0"),  # published before it is used
    Column("revoked_at", BigInteger),
)

# What clients pushed before sending the browser (RFC 9126), found by the digest of its `request_uri`.
pushed_requests = Table(
    "pushed_requests",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("client_id", Text, ForeignKey("clients.id"), nullable=False),
    Column("parameters", Text, nullable=False),  # form-encoded
    Column("expires_at", BigInteger, nullable=False),
    Column("begun_at", BigInteger),  # a browser came with it
    Column("used_at", BigInteger),  # a code was issued
    Index("pushed_requests_expires", "expires_at"),
)

# The `jti` of client assertions and DPoP proofs, kept as long as they could be accepted again.
proofs = Table(
    "proofs",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Index("proofs_expires", "expires_at"),
)

# Initial access tokens (RFC 7591 section 3): who may register clients, how many, and with which scopes.
registration_tokens = Table(
    "registration_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_by", Text, nullable=False, server_default=""),  # nobody knows of those from before it was kept
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# Logouts that clients have yet to hear of (OpenID Connect Back-Channel Logout).
logout_deliveries = Table(
    "logout_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("client_id", Text, ForeignKey("clients.id"), nullable=False),
    Column("session_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("logout_deliveries_next", "next_at"),
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
    Column("position", BigInteger),  # in the chain; NULL until it is chained, a moment later
    Column("hash", Text),  # hexadecimal
    Index("audit_at", "at"),
    # With the number: pages of what one did, or of what was done to one, are read backwards.
    Index("audit_who", "who", "id"),
    Index("audit_about", "about", "id"),
    Index("audit_position", "position", unique=True),
)

# One row: where the audit's chain ends, and where it begins since its oldest lines were pruned.
audit_chain = Table(
    "audit_chain",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("anchor_position", BigInteger, nullable=False),
    Column("anchor_hash", Text, nullable=False),
    Column("anchored_at", BigInteger),
)

# What the words in tokens mean. Names of roles are not foreign keys: a role may be held before it is described.
roles = Table(
    "roles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("includes", Text, nullable=False),
    Column("permissions", Text, nullable=False),
    Column("built_in", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("tokens_valid_after", BigInteger, nullable=False, server_default="0"),  # older ones that say it are refused
)

groups = Table(
    "groups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("roles", Text, nullable=False),  # what every member may do
    Column("created_at", BigInteger, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Text, ForeignKey("groups.id"), primary_key=True),
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("added_at", BigInteger, nullable=False),
    Index("group_members_user", "user_id"),
)

# Whom other services have to be told of since a large group of theirs changed.
roles_to_tell = Table(
    "roles_to_tell",
    metadata,
    Column("user_id", Text, ForeignKey("users.id"), primary_key=True),
    Column("by", Text),  # who changed the group
)

resources = Table(
    "resources",
    metadata,
    Column("id", Text, primary_key=True),  # of its client, too: what it introspects and reads revocations with
    Column("identifier", Text, nullable=False, unique=True),  # the audience
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON: name and what a person reads on the consent page
    Column("permissions", Text, nullable=False),  # JSON: name and description
    Column("access_token_seconds", Integer),  # the longest its access tokens live; NULL: as the client says
    Column("built_in", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("actors", Text, nullable=False, server_default="[]"),  # clients that people may let act for them there
    Column("signing_alg", Text, nullable=False, server_default="ES256"),  # of its access tokens
)

# Mails that have not left yet; a row goes with its mail.
mails = Table(
    "mails",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("user_id", Text, ForeignKey("users.id")),
    Column("recipient", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),  # nobody wants it after this
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", BigInteger, nullable=False),
    Index("mails_next_attempt", "next_attempt_at"),
    Index("mails_user", "user_id"),
)

# What a link in a mail proves: that whoever follows it reads the mails of that address.
mail_links = Table(
    "mail_links",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("purpose", Text, nullable=False),  # verify | recover
    Column("user_id", Text, ForeignKey("users.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("email_key", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),  # or replaced, or no longer wanted
    Index("mail_links_user", "user_id"),
    Index("mail_links_email", "email_key"),
    Index("mail_links_expires", "expires_at"),
)

# Somebody says they forgot a password: looked into later, so that the answer tells nothing.
recoveries = Table(
    "recoveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("wanted", Text, nullable=False),  # a user name or an address, as it was typed
    Column("address", Text),
    Column("created_at", BigInteger, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("email", Text),
    Column("roles", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("used_by", Text),
    Column("revoked_at", BigInteger),
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
    Column("since", BigInteger),  # when they must have signed in there at the earliest; NULL: whenever
    Column("expires_at", BigInteger, nullable=False),
    Index("upstream_sign_ins_expires", "expires_at"),
)

# Who came from an upstream with the address of an account here, until they have proven that it is theirs.
upstream_arrivals = Table(
    "upstream_arrivals",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # of the cookie of the browser that came
    Column("upstream_id", Text, ForeignKey("upstreams.id"), nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("way_on", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("authenticated_at", BigInteger, nullable=False, server_default="0"),  # 0: nobody says it
    Index("upstream_arrivals_expires", "expires_at"),
)
